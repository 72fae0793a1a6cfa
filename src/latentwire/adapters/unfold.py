"""Unfold each latent to the resolution of the text, let the parts attend to one another, fold them into slots again.

A latent stands for several tokens. A receiver whose words are cut elsewhere needs the end of one latent and the
beginning of the next; between parts, attention can give it that, between whole latents it has to take all or nothing.
The packet and the receiver's positions stay the same. Folding starts as the mean of the parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.adapters.base import Adapter, AdapterConfig
from latentwire.adapters.mlp import MLPAdapterConfig
from latentwire.errors import UserError
from latentwire.types import Latents


@AdapterConfig.register_subclass("unfold")
@dataclass
class UnfoldAdapterConfig(AdapterConfig):
    """parts: of each latent, a multiple of each of ``slots``. layers: attention over parts; each with an MLP
    ``multiple`` times as wide as the receiver."""

    parts: int = 4
    layers: int = 2
    multiple: float = 0.0
    head_dim: int = 64

    def build(self, d_z: int, width: int) -> UnfoldAdapter:
        if odd := [slots for slots in self.slots if self.parts % slots]:
            raise UserError(f"adapter.parts ({self.parts}) must be a multiple of adapter.slots ({odd[0]})")
        return UnfoldAdapter(self, d_z, width)


class UnfoldAdapter(Adapter):
    """Latents [B, M, D] → parts [B, M * parts, E] → slots [B, M * slots, E] of unit scale."""

    config: UnfoldAdapterConfig

    def __init__(self, config: UnfoldAdapterConfig, d_z: int, width: int) -> None:
        super().__init__()
        self.config = config
        unfold = MLPAdapterConfig(
            slots=(config.parts,), layers=config.layers, multiple=config.multiple, head_dim=config.head_dim
        )
        self.unfold = unfold.build(d_z, width)
        self.fold = nn.ModuleDict()
        for slots in config.slots:
            each = config.parts // slots
            fold = self.fold[str(slots)] = nn.Linear(each * width, width)
            with torch.no_grad():
                # the mean, scaled so that independent parts give slots of unit scale
                fold.weight.copy_(torch.eye(width).repeat(1, each) / each**0.5)
                fold.bias.zero_()

    def forward(self, latents: Latents, mode: str, slots: int) -> Tensor:
        parts_BPE = self.unfold(latents, mode, self.config.parts)
        B, M = latents.mask_BM.shape
        return self.fold[str(slots)](parts_BPE.reshape(B, M * slots, -1))
