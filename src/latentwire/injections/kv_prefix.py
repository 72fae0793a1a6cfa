"""Keys and values for every layer, made from the slots.

Keys are made *before* RoPE, in the receiver's own statistics, then turned to the position of the text the slot stands
for: the receiver meets keys of the kind it knows, at the places where it expects them. (Prefix tuning, Li & Liang 2021,
gave learned K/V constant values; here they carry the text.)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from latentwire.injections.base import InjectionConfig
from latentwire.injections.made import MadeKV, own_width
from latentwire.receivers import Geometry, Receiver
from latentwire.types import Prefix


@InjectionConfig.register_subclass("kv-prefix")
@dataclass
class KVPrefixConfig(InjectionConfig):
    """multiple: width of the hidden layer in multiples of the receiver's. width: of a slot (0: the receiver's)."""

    multiple: float = 3.0
    width: int = 0

    def slot_width(self, geometry: Geometry) -> int:
        return own_width(self.width, geometry)

    def build(self, geometry: Geometry) -> KVPrefix:
        return KVPrefix(self, geometry)


class KVPrefix(MadeKV):
    """Slots [B, S, E] → LayerNorm → GELU layer → K and V [L, B, H, S, K], scaled and shifted by the receiver's own."""

    def __init__(self, config: KVPrefixConfig, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.config = config
        width, hidden = config.slot_width(geometry), int(config.multiple * geometry.width)
        out = 2 * geometry.layers * geometry.kv_heads * geometry.head_dim
        self.make = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))

    def forward(
        self, slots_BSE: Tensor, mask_BS: Tensor, positions_BS: Tensor, next_B: Tensor, receiver: Receiver
    ) -> Prefix:
        head = receiver.head_for(slots_BSE.shape[0])
        return head.then(self.without_head(slots_BSE, mask_BS, positions_BS, next_B, receiver))

    def without_head(
        self, slots_BSE: Tensor, mask_BS: Tensor, positions_BS: Tensor, next_B: Tensor, receiver: Receiver
    ) -> Prefix:
        """Keys and values of the slots alone, to be set behind a prefix."""
        g = self.geometry
        B, S, _ = slots_BSE.shape
        made = self.make(slots_BSE).reshape(B, S, 2, g.layers, g.kv_heads, g.head_dim)
        k, v = made.permute(2, 0, 3, 4, 1, 5)  # each B L H S K
        return self.placed(k, v, mask_BS, positions_BS, next_B, receiver)
