"""One linear map with a learned scale: the smallest adapter, and the honest baseline of every other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.adapters.base import Adapter, AdapterConfig, Expand
from latentwire.types import Latents


@AdapterConfig.register_subclass("linear")
@dataclass
class LinearAdapterConfig(AdapterConfig):
    def build(self, d_z: int, width: int) -> LinearAdapter:
        return LinearAdapter(self, d_z, width)


class LinearAdapter(Adapter):
    """Latents [B, M, D] → slots [B, M * slots, E]; mode makes no difference here."""

    def __init__(self, config: LinearAdapterConfig, d_z: int, width: int) -> None:
        super().__init__()
        self.config: LinearAdapterConfig = config
        self.map = Expand(config.slots, d_z, width)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, latents: Latents, mode: str, slots: int) -> Tensor:
        return self.map(latents.z_BMD, slots) * self.scale
