"""What every adapter is: latents in, slots of the receiver's width out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.config import Choice
from latentwire.receivers import Receiver
from latentwire.types import Latents


@dataclass
class AdapterConfig(Choice):
    """slots: how many slots the receiver may get for each latent (the packet stays the same); the first is what it gets
    unless something else is asked for."""

    slots: tuple[int, ...] = (1,)

    def build(self, d_z: int, width: int) -> Adapter:
        """The module for latents of ``d_z`` and a receiver of embedding width ``width``."""
        raise NotImplementedError


class Adapter(nn.Module):
    """``forward(latents, mode, slots)`` gives slots [B, M * slots, E]; slots of a masked latent may hold anything."""

    config: AdapterConfig

    def calibrate(self, receiver: Receiver, texts: list[str]) -> None:
        """Take statistics from the receiver on plain text before training; most adapters need none."""

    def penalty(self) -> Tensor | None:
        """A term of the adapter's own for the training loss, weighted already; None if it has none."""
        return None

    def forward(self, latents: Latents, mode: str, slots: int) -> Tensor:
        raise NotImplementedError


class Expand(nn.ModuleDict):
    """Latents [B, M, D] to [B, M * slots, E] by a linear map of its own for each number of slots."""

    def __init__(self, slots: tuple[int, ...], d_z: int, width: int) -> None:
        super().__init__({str(count): nn.Linear(d_z, count * width) for count in slots})

    def forward(self, z_BMD: Tensor, slots: int) -> Tensor:
        B, M, _ = z_BMD.shape
        return self[str(slots)](z_BMD).reshape(B, M * slots, -1)

    @torch.no_grad()
    def stand_behind(self, map_ND: Tensor) -> None:
        """Take the map [N + 1, D] (its last row a constant) in: what was made for D channels reads N channels now."""
        for count, linear in list(self.items()):
            assert isinstance(linear, nn.Linear)
            joined = nn.Linear(len(map_ND) - 1, linear.out_features).to(linear.weight.device)
            joined.weight.copy_(linear.weight @ map_ND[:-1].T)
            joined.bias.copy_(linear.weight @ map_ND[-1] + linear.bias)
            self[count] = joined
