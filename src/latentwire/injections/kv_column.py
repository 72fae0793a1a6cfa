"""Keys and values made layer by layer: a slot rises through small blocks, one for each layer of the receiver.

What a layer of a receiver keeps of a token is made from what the layers below made of it. `kv-prefix` makes all layers'
keys and values from one hidden layer; here each layer's come from a state of their own, which one block more has
worked on. For the same number of weights that is a deeper link with a wider slot, and several tokens in one slot are
taken apart step by step. Blocks start as the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.injections.base import InjectionConfig
from latentwire.injections.made import MadeKV, Stand, own_width
from latentwire.receivers import Geometry, Receiver
from latentwire.types import Prefix


@InjectionConfig.register_subclass("kv-column")
@dataclass
class KVColumnConfig(InjectionConfig):
    """width: of a slot on its way up (0: the receiver's). multiple: hidden width of a block in multiples of that.

    stand: tell slots where they stand, if the receiver learned its positions (one that rotates keys needs no telling).
    """

    width: int = 0
    multiple: float = 0.5
    stand: bool = False

    def slot_width(self, geometry: Geometry) -> int:
        return own_width(self.width, geometry)

    def build(self, geometry: Geometry) -> KVColumn:
        return KVColumn(self, geometry)


class KVColumn(MadeKV):
    """Slots [B, S, W] → for each layer a block (LayerNorm, GELU layer, added) → LayerNorm → its K and V."""

    def __init__(self, config: KVColumnConfig, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.config = config
        width = config.slot_width(geometry)
        hidden = max(1, int(config.multiple * width))
        out = 2 * geometry.kv_heads * geometry.head_dim
        self.stand = Stand(geometry, width) if config.stand and not geometry.rope else None
        self.blocks, self.make = nn.ModuleList(), nn.ModuleList()
        for _ in range(geometry.layers):
            last = nn.Linear(hidden, width)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.blocks.append(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), last))
            self.make.append(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out)))

    def forward(
        self, slots_BSE: Tensor, mask_BS: Tensor, positions_BS: Tensor, next_B: Tensor, receiver: Receiver
    ) -> Prefix:
        g = self.geometry
        B, S, _ = slots_BSE.shape
        x_BSW, made = slots_BSE if self.stand is None else self.stand(slots_BSE, positions_BS, receiver), []
        for block, make in zip(self.blocks, self.make, strict=True):
            x_BSW = x_BSW + block(x_BSW)
            made.append(make(x_BSW))
        k, v = torch.stack(made).reshape(g.layers, B, S, 2, g.kv_heads, g.head_dim).permute(3, 1, 0, 4, 2, 5)
        return receiver.head_for(B).then(self.placed(k, v, mask_BS, positions_BS, next_B, receiver))
