"""Vectors in place of the context's embeddings, read by the receiver itself (prompt tuning, Lester et al. 2021).

The receiver reads them once behind its head; the keys and values that it makes are the prefix of every row. Their norm
is free: it starts at the receiver's embedding RMS and is never clamped (good soft tokens have been seen far above it).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.injections.base import Injection, InjectionConfig
from latentwire.receivers import Geometry, Receiver
from latentwire.types import Prefix


@InjectionConfig.register_subclass("soft-tokens")
@dataclass
class SoftTokensConfig(InjectionConfig):
    """multiple: width of the hidden layer in multiples of the receiver's width. gain: where the learned gain starts,
    in units of the receiver's embedding RMS."""

    multiple: float = 3.0
    gain: float = 1.0

    def build(self, geometry: Geometry) -> SoftTokens:
        return SoftTokens(self, geometry)


class SoftTokens(Injection):
    """Slots [B, S, E] → residual MLP → embeddings [B, S, E] → one pass through the frozen receiver."""

    rms: Tensor

    def __init__(self, config: SoftTokensConfig, geometry: Geometry) -> None:
        super().__init__()
        self.config = config
        hidden = int(config.multiple * geometry.width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(geometry.width),
            nn.Linear(geometry.width, hidden),
            nn.GELU(),
            nn.Linear(hidden, geometry.width),
        )
        self.gain = nn.Parameter(torch.tensor(float(config.gain)))
        self.register_buffer("rms", torch.ones(()))

    def calibrate(self, receiver: Receiver, texts: list[str]) -> None:
        ids = [token for row in receiver.prompt.context_ids(texts) for token in row]
        # of embed(ids), not of the weight: Gemma scales inside, and rare words differ
        with torch.no_grad():
            embedded = receiver.embed(torch.tensor([ids], device=receiver.device)).float()
        self.rms.copy_(embedded.pow(2).mean().sqrt())

    def forward(
        self, slots_BSE: Tensor, mask_BS: Tensor, positions_BS: Tensor, next_B: Tensor, receiver: Receiver
    ) -> Prefix:
        embeds_BSE = (slots_BSE + self.mlp(slots_BSE)) * (self.gain * self.rms)
        # soft tokens are tokens to the receiver: whole positions (learned position tables know no others)
        head = receiver.head_for(slots_BSE.shape[0])
        read = receiver.read(None, mask_BS, head, embeds_BTE=embeds_BSE, positions_BT=positions_BS.round().long())
        return Prefix(read.kv, read.mask_BM, next_B)
