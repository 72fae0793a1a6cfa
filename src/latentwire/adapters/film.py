"""FiLM: a base slot that knows its place, scaled and shifted channel by channel as the latent says.

Perez et al. 2018 let a question modulate the features of an image this way; here a latent modulates a learned slot. The
scale is 1 plus what the latent gives, as in the paper, so that a silent latent leaves the slot as it is. Beside the
linear adapter it has one thing more: a latent can turn up what is said of a place, a product that no sum can give.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.adapters.base import Adapter, AdapterConfig, Expand
from latentwire.adapters.mlp import PLACES, place_features
from latentwire.types import Latents


@AdapterConfig.register_subclass("film")
@dataclass
class FiLMAdapterConfig(AdapterConfig):
    def build(self, d_z: int, width: int) -> FiLMAdapter:
        return FiLMAdapter(self, d_z, width)


class FiLMAdapter(Adapter):
    """Latents [B, M, D] → slots [B, M * slots, E] = base * (1 + scale(z)) + shift(z); mode makes no difference here."""

    def __init__(self, config: FiLMAdapterConfig, d_z: int, width: int) -> None:
        super().__init__()
        self.config: FiLMAdapterConfig = config
        self.expand = Expand(config.slots, d_z, 2 * width)
        # not zero: a scale has no gradient where there is nothing to scale
        self.base = nn.Parameter(torch.randn(width))
        self.place = nn.Linear(2 * PLACES, width, bias=False)

    def forward(self, latents: Latents, mode: str, slots: int) -> Tensor:
        scale_BSE, shift_BSE = self.expand(latents.z_BMD, slots).chunk(2, -1)
        base_BSE = self.base + self.place(place_features(latents, slots))
        return base_BSE * (1 + scale_BSE) + shift_BSE
