"""A linear map, then a scale and a shift of every channel that are held near (1, 0) by a penalty.

A linear map could hold both itself, so this adds nothing that `linear` could not say. What differs is training: a
channel's size moves by one number instead of by a row of the matrix, all slot counts share it, and how far channels
are stretched is held in check and can be read off. The scale is kept as its distance from 1, so that an optimiser's
weight decay pulls to (1, 0) as well, and not to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.adapters.base import Adapter, AdapterConfig, Expand
from latentwire.errors import UserError
from latentwire.types import Latents


@AdapterConfig.register_subclass("affine")
@dataclass
class AffineAdapterConfig(AdapterConfig):
    """strength: what doubling every channel costs, in the loss's unit (nats)."""

    strength: float = 0.1

    def build(self, d_z: int, width: int) -> AffineAdapter:
        if self.strength < 0:
            raise UserError(f"adapter.strength ({self.strength}) must not be negative: it would drive channels apart")
        return AffineAdapter(self, d_z, width)


class AffineAdapter(Adapter):
    """Latents [B, M, D] → slots [B, M * slots, E]; mode makes no difference here."""

    config: AffineAdapterConfig

    def __init__(self, config: AffineAdapterConfig, d_z: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.expand = Expand(config.slots, d_z, width)
        self.stretch = nn.Parameter(torch.zeros(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, latents: Latents, mode: str, slots: int) -> Tensor:
        return self.expand(latents.z_BMD, slots) * (1 + self.stretch) + self.shift

    def penalty(self) -> Tensor | None:
        """Mean square of the channels' distances from (1, 0), weighted."""
        if not self.config.strength:
            return None
        return self.config.strength * (self.stretch.square().mean() + self.shift.square().mean())
