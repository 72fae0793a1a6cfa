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
from latentwire.adapters.mlp import PLACES, SlotLayer, place_features
from latentwire.errors import UserError
from latentwire.types import MODES, Latents


@AdapterConfig.register_subclass("unfold")
@dataclass
class UnfoldAdapterConfig(AdapterConfig):
    """parts: of each latent, a multiple of ``slots``. layers: attention over parts; each with an MLP ``multiple`` times
    as wide as the receiver."""

    parts: int = 4
    layers: int = 2
    multiple: float = 0.0
    head_dim: int = 64

    def build(self, d_z: int, width: int) -> UnfoldAdapter:
        if self.parts % self.slots:
            raise UserError(f"adapter.parts ({self.parts}) must be a multiple of adapter.slots ({self.slots})")
        return UnfoldAdapter(self, d_z, width)


class UnfoldAdapter(Adapter):
    """Latents [B, M, D] → parts [B, M * parts, E] → slots [B, M * slots, E] of unit scale."""

    def __init__(self, config: UnfoldAdapterConfig, d_z: int, width: int) -> None:
        super().__init__()
        self.config: UnfoldAdapterConfig = config
        self.parts = config.parts
        self.expand = nn.Linear(d_z, self.parts * width)
        self.markers = nn.ParameterDict({mode: nn.Parameter(torch.zeros(width)) for mode in MODES})
        self.place = nn.Linear(2 * PLACES, width, bias=False)
        heads = max(1, width // config.head_dim)
        while width % heads:
            heads -= 1
        self.layers = nn.ModuleList(SlotLayer(width, heads, config.multiple) for _ in range(config.layers))
        each = config.parts // config.slots
        self.fold = nn.Linear(each * width, width)
        with torch.no_grad():
            # the mean, scaled so that independent parts give slots of unit scale
            self.fold.weight.copy_(torch.eye(width).repeat(1, each) / each**0.5)
            self.fold.bias.zero_()

    def forward(self, latents: Latents, mode: str) -> Tensor:
        B, M, _ = latents.z_BMD.shape
        parts, slots = self.parts, self.config.slots
        x_BPE = self.expand(latents.z_BMD).reshape(B, M * parts, -1)
        x_BPE = x_BPE + self.markers[mode] + self.place(place_features(latents, parts))
        # padded parts are hidden from the others; a text without latents still needs something to attend to
        mask_BP = latents.mask_BM.repeat_interleave(parts, 1)
        see_B1PP = mask_BP[:, None, None, :] | torch.eye(M * parts, dtype=torch.bool, device=x_BPE.device)
        for layer in self.layers:
            x_BPE = layer(x_BPE, see_B1PP)
        return self.fold(x_BPE.reshape(B, M * slots, -1))
