"""Both ways at once: the slots as soft tokens that the receiver reads, and as keys and values made for its layers.

A slot is two K/V positions then: what the receiver makes of it, and what the link says directly. Neither sees the
other, and both stand at the slot's place in the text. What it costs is counted: compare it with either way alone at
twice the slots.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from latentwire.errors import UserError
from latentwire.injections.base import Injection, InjectionConfig
from latentwire.injections.kv_prefix import KVPrefixConfig
from latentwire.injections.soft_tokens import SoftTokensConfig
from latentwire.receivers import Geometry, Receiver
from latentwire.types import Prefix


@InjectionConfig.register_subclass("soft-and-kv")
@dataclass
class SoftAndKVConfig(InjectionConfig):
    """soft, kv: options of ``soft-tokens`` and of ``kv-prefix``."""

    soft: SoftTokensConfig = field(default_factory=SoftTokensConfig)
    kv: KVPrefixConfig = field(default_factory=KVPrefixConfig)

    def build(self, geometry: Geometry) -> SoftAndKV:
        if self.kv.slot_width(geometry) != geometry.width:
            raise UserError(
                f"injection.kv.width: both ways share one slot, and soft tokens are {geometry.width} wide; leave it out"
            )
        return SoftAndKV(self, geometry)


class SoftAndKV(Injection):
    """Slots [B, S, E] → head, S soft tokens as read, S made K/V positions."""

    reads = True

    def __init__(self, config: SoftAndKVConfig, geometry: Geometry) -> None:
        super().__init__()
        self.config = config
        self.soft, self.kv = config.soft.build(geometry), config.kv.build(geometry)

    def calibrate(self, receiver: Receiver, texts: list[str]) -> None:
        self.soft.calibrate(receiver, texts)
        self.kv.calibrate(receiver, texts)

    def kv_positions(self, slots_B: Tensor) -> Tensor:
        return self.soft.kv_positions(slots_B) + self.kv.kv_positions(slots_B)

    def vectors(self, slots_BSE: Tensor) -> Tensor:
        return self.soft.vectors(slots_BSE)

    def forward(
        self, slots_BSE: Tensor, mask_BS: Tensor, positions_BS: Tensor, next_B: Tensor, receiver: Receiver
    ) -> Prefix:
        read = self.soft(slots_BSE, mask_BS, positions_BS, next_B, receiver)
        return read.then(self.kv.without_head(slots_BSE, mask_BS, positions_BS, next_B, receiver))
