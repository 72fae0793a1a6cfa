"""Linear map, slot positions, a few self-attention layers over the slots, a residual MLP.

Attention between slots lets a receiver whose tokens are cut elsewhere borrow from the neighbouring latents. Its output
projections start at zero, so an untrained adapter is the linear map alone. Each mode has a learned marker of its own
(ARC-Encoder and ICAE mark the task in a similar way), added to every slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.adapters.base import Adapter, AdapterConfig, Expand
from latentwire.types import MODES, Latents


@AdapterConfig.register_subclass("mlp")
@dataclass
class MLPAdapterConfig(AdapterConfig):
    """layers: self-attention layers over slots; each with an MLP ``multiple`` times as wide as the receiver.

    told: slots carry how many source tokens stand behind a latent, so that a link may take a full one apart in another
    way than a loose one.
    """

    layers: int = 2
    multiple: float = 1.0
    head_dim: int = 64
    told: bool = False

    def build(self, d_z: int, width: int) -> MLPAdapter:
        return MLPAdapter(self, d_z, width)


class MLPAdapter(Adapter):
    """Latents [B, M, D] → slots [B, M * slots, E] of unit scale."""

    def __init__(self, config: MLPAdapterConfig, d_z: int, width: int) -> None:
        super().__init__()
        self.config: MLPAdapterConfig = config
        self.expand = Expand(config.slots, d_z, width)
        self.markers = nn.ParameterDict({mode: nn.Parameter(torch.zeros(width)) for mode in MODES})
        self.place = nn.Linear(2 * PLACES, width, bias=False)
        self.ratio = nn.Linear(2, width, bias=False) if config.told else None
        if self.ratio is not None:
            nn.init.zeros_(self.ratio.weight)
        heads = max(1, width // config.head_dim)
        while width % heads:
            heads -= 1
        self.layers = nn.ModuleList(SlotLayer(width, heads, config.multiple) for _ in range(config.layers))

    def forward(self, latents: Latents, mode: str, slots: int) -> Tensor:
        x_BSE = self.expand(latents.z_BMD, slots)
        x_BSE = x_BSE + self.markers[mode] + self.place(place_features(latents, slots))
        if self.ratio is not None:
            log_B = (latents.ratio_B.to(x_BSE.dtype)).log2() - 3.0  # -1, 0 and 1 at ratios 4, 8 and 16
            x_BSE = x_BSE + self.ratio(torch.stack([log_B, log_B * log_B], -1))[:, None]
        # padded slots are hidden from the others; a text without latents still needs something to attend to
        mask_BS = latents.mask_BM.repeat_interleave(slots, 1)
        see_B1SS = mask_BS[:, None, None, :] | torch.eye(x_BSE.shape[1], dtype=torch.bool, device=x_BSE.device)
        for layer in self.layers:
            x_BSE = layer(x_BSE, see_B1SS)
        return x_BSE


class SlotLayer(nn.Module):
    """Pre-norm self-attention and MLP over slots, both starting as the identity."""

    def __init__(self, width: int, heads: int, multiple: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        hidden = int(multiple * width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) if hidden else None
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        if self.mlp is not None:
            nn.init.zeros_(self.mlp[2].weight)  # ty: ignore[invalid-argument-type]
            nn.init.zeros_(self.mlp[2].bias)  # ty: ignore[invalid-argument-type]

    def forward(self, x_BSE: Tensor, see_B1SS: Tensor) -> Tensor:
        B, S, E = x_BSE.shape
        q, k, v = self.qkv(self.norm1(x_BSE)).reshape(B, S, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=see_B1SS)
        x_BSE = x_BSE + self.out(mixed.transpose(1, 2).reshape(B, S, E))
        return x_BSE if self.mlp is None else x_BSE + self.mlp(self.norm2(x_BSE))


PLACES = 24


def place_features(latents: Latents, slots: int) -> Tensor:
    """Sine and cosine of where in the text (in source tokens) each slot stands: [B, M * slots, 2 * PLACES].

    Functions of the place and not of the slot's number, so that one adapter serves every ratio and any length.
    """
    M = latents.mask_BM.shape[1]
    device = latents.z_BMD.device
    step_B1 = (latents.source_B / latents.count_B.clamp_min(1))[:, None]
    place_BS = (torch.arange(M * slots, device=device) + 0.5) / slots * step_B1
    rate = 2 * torch.pi / torch.logspace(0.5, 11, PLACES, base=2.0, device=device)
    angle = place_BS[..., None] * rate
    return torch.cat([angle.sin(), angle.cos()], -1).to(latents.z_BMD.dtype)
