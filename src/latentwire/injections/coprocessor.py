"""A short extension of the cache, made from all slots together.

However long the text, the receiver holds ``length`` K/V positions for it. Each of them is the mean of the slots and
what a learned query of its own picks among them, so no slot is ever without a gradient. Keys and values are made in the
receiver's own statistics and turned to places in the text, as ``kv-prefix`` does. They start near the mean key and
value of plain text, from which a gain, learned per layer, takes them away. (After "Deliberation in Latent Space via
Differentiable Cache Augmentation", Liu et al. 2024; there a language model that reads the cache makes the extension.)

It stands in place of ``kv-prefix``, never beside it: a link has one injection, so no config can ask for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.errors import UserError
from latentwire.injections.base import InjectionConfig
from latentwire.injections.made import MadeKV
from latentwire.receivers import Geometry, Receiver
from latentwire.types import Prefix


@InjectionConfig.register_subclass("coprocessor")
@dataclass
class CoprocessorConfig(InjectionConfig):
    """length: K/V positions for a text. multiple: width of the hidden layer in multiples of the receiver's width.
    gain: where the gain of each layer starts, in deviations of the receiver's own keys and values.
    """

    length: int = 4
    multiple: float = 2.0
    gain: float = 0.1

    def build(self, geometry: Geometry) -> Coprocessor:
        if self.length < 1:
            raise UserError(f"injection.length is a number of K/V positions, at least 1, not {self.length}")
        if self.gain <= 0:
            raise UserError(f"injection.gain must be above 0, not {self.gain}: a gain of 0 hides the latents")
        return Coprocessor(self, geometry)


class Coprocessor(MadeKV):
    """Slots [B, S, E] → pooled [B, P, 2E] → GELU layer → K and V [L, B, H, P, K]; P: ``length``."""

    def __init__(self, config: CoprocessorConfig, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.config = config
        width, hidden = geometry.width, int(config.multiple * geometry.width)
        self.norm = nn.LayerNorm(width)
        self.query_PE = nn.Parameter(torch.randn(config.length, width) * width**-0.5)
        self.make = nn.Sequential(
            nn.Linear(2 * width, hidden),
            nn.GELU(),
            nn.Linear(hidden, 2 * geometry.layers * geometry.kv_heads * geometry.head_dim),
        )
        # positions that look for the same still differ
        self.place_PW = nn.Parameter(torch.randn(config.length, 2 * width) * 0.5)
        self.gain_L = nn.Parameter(torch.full((geometry.layers,), float(config.gain)))

    def kv_positions(self, slots_B: Tensor) -> Tensor:
        return torch.full_like(slots_B, self.config.length)

    def pooled(self, slots_BSE: Tensor, mask_BS: Tensor) -> Tensor:
        """For each position, the mean of the slots and what its query picks, [B, P, 2E]."""
        slots_BSE = self.norm(slots_BSE)
        scores_BPS = self.query_PE @ slots_BSE.mT
        # not -inf: a text without slots would make this NaN
        picks_BPS = scores_BPS.float().masked_fill(~mask_BS[:, None], -1e9).softmax(-1)
        mean_BE = (slots_BSE * mask_BS[..., None]).sum(1) / mask_BS.sum(-1, keepdim=True).clamp_min(1)
        picked_BPE = picks_BPS.to(slots_BSE.dtype) @ slots_BSE
        return torch.cat([mean_BE[:, None].expand_as(picked_BPE), picked_BPE], -1) + self.place_PW

    def forward(
        self, slots_BSE: Tensor, mask_BS: Tensor, positions_BS: Tensor, next_B: Tensor, receiver: Receiver
    ) -> Prefix:
        g, P = self.geometry, self.config.length
        B = slots_BSE.shape[0]
        head = receiver.head_for(B)
        made = self.make(self.pooled(slots_BSE, mask_BS)).reshape(B, P, 2, g.layers, g.kv_heads, g.head_dim)
        k, v = made.permute(2, 0, 3, 4, 1, 5).float() * self.gain_L[:, None, None, None]  # each B L H P K
        # spread over the text like slots, but so few of them stand further apart
        start = head.mask_BM.shape[1]
        index_P = torch.arange(P, device=slots_BSE.device)
        positions_BP = (start + (index_P + 0.5) * ((next_B - start) / P)[:, None] - 0.5).clamp_min(0)
        return head.then(self.placed(k, v, mask_BS.new_ones(B, P), positions_BP, next_B, receiver))
