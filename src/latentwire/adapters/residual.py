"""A linear map with slot positions, and a residual two-layer MLP behind it.

Each slot is made on its own: no attention, so the work grows with the slots and not with their square. The MLP's last
layer starts at zero, so an untrained adapter is the linear map with places, and training adds only what helps.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from latentwire.adapters.base import Adapter, AdapterConfig, Expand
from latentwire.adapters.mlp import PLACES, place_features
from latentwire.errors import UserError
from latentwire.types import Latents


@AdapterConfig.register_subclass("residual")
@dataclass
class ResidualAdapterConfig(AdapterConfig):
    """hidden: width of the middle layer in multiples of the receiver's. dropout: share of its units dropped in training
    (off by default: where every passage is seen once there is nothing to learn by heart)."""

    hidden: float = 2.0
    dropout: float = 0.0

    def build(self, d_z: int, width: int) -> ResidualAdapter:
        if int(self.hidden * width) < 1:
            raise UserError(
                f"adapter.hidden ({self.hidden}) leaves no middle layer; `linear` is the adapter without one"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"adapter.dropout is a share in [0, 1), not {self.dropout}")
        return ResidualAdapter(self, d_z, width)


class ResidualAdapter(Adapter):
    """Latents [B, M, D] → slots [B, M * slots, E] of unit scale; mode makes no difference here."""

    def __init__(self, config: ResidualAdapterConfig, d_z: int, width: int) -> None:
        super().__init__()
        self.config: ResidualAdapterConfig = config
        self.expand = Expand(config.slots, d_z, width)
        self.place = nn.Linear(2 * PLACES, width, bias=False)
        hidden, last = int(config.hidden * width), nn.Linear(int(config.hidden * width), width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(config.dropout), last
        )

    def forward(self, latents: Latents, mode: str, slots: int) -> Tensor:
        x_BSE = self.expand(latents.z_BMD, slots) + self.place(place_features(latents, slots))
        return x_BSE + self.mlp(x_BSE)
