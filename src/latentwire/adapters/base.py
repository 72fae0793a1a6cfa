"""What every adapter is: latents in, slots of the receiver's width out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from latentwire.config import Choice
from latentwire.types import Latents


@dataclass
class AdapterConfig(Choice):
    """slots: how many slots the receiver gets for each latent (the packet stays the same)."""

    slots: int = 1

    def build(self, d_z: int, width: int) -> Adapter:
        """The module for latents of ``d_z`` and a receiver of embedding width ``width``."""
        raise NotImplementedError


class Adapter(nn.Module):
    """``forward(latents, mode)`` gives slots [B, M * slots, E]; slots of a masked latent may hold anything."""

    config: AdapterConfig

    def forward(self, latents: Latents, mode: str) -> Tensor:
        raise NotImplementedError
