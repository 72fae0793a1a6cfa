"""Keys and values for every layer, made from the slots.

Keys are made *before* RoPE, in the receiver's own statistics, then turned to the position of the text the slot stands
for: the receiver meets keys of the kind it knows, at the places where it expects them. (Prefix tuning, Li & Liang 2021,
gave learned K/V constant values; here they carry the text.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.injections.base import Injection, InjectionConfig
from latentwire.receivers import Geometry, Receiver
from latentwire.types import Prefix


@InjectionConfig.register_subclass("kv-prefix")
@dataclass
class KVPrefixConfig(InjectionConfig):
    """multiple: width of the hidden layer in multiples of the receiver's width."""

    multiple: float = 3.0

    def build(self, geometry: Geometry) -> KVPrefix:
        return KVPrefix(self, geometry)


class KVPrefix(Injection):
    """Slots [B, S, E] → LayerNorm → GELU layer → K and V [L, B, H, S, K], scaled and shifted by the receiver's own."""

    k_mean: Tensor
    k_std: Tensor
    v_mean: Tensor
    v_std: Tensor

    def __init__(self, config: KVPrefixConfig, geometry: Geometry) -> None:
        super().__init__()
        self.config, self.geometry = config, geometry
        hidden = int(config.multiple * geometry.width)
        shape = (geometry.layers, geometry.kv_heads, geometry.head_dim)
        out = 2 * geometry.layers * geometry.kv_heads * geometry.head_dim
        self.make = nn.Sequential(
            nn.LayerNorm(geometry.width), nn.Linear(geometry.width, hidden), nn.GELU(), nn.Linear(hidden, out)
        )
        for name in ("k_mean", "v_mean"):
            self.register_buffer(name, torch.zeros(shape))
        for name in ("k_std", "v_std"):
            self.register_buffer(name, torch.ones(shape))

    def calibrate(self, receiver: Receiver, texts: list[str]) -> None:
        for name, value in receiver.key_value_statistics(texts).items():
            getattr(self, name).copy_(value)

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
        k, v = made.permute(2, 0, 3, 4, 1, 5).float()  # each B L H S K
        k = k * self.k_std[:, :, None] + self.k_mean[:, :, None]
        v = v * self.v_std[:, :, None] + self.v_mean[:, :, None]
        k = receiver.rotate(k.flatten(1, 2), positions_BS).reshape(k.shape)
        k, v = k.to(receiver.dtype), v.to(receiver.dtype)
        kv = list(zip(k.unbind(1), v.unbind(1), strict=True))
        return Prefix(kv, mask_BS, next_B)
