"""A frozen sentence encoder's token states, gathered by learned queries.

From the first implementation; the queries are a Perceiver's (Jaegle et al. 2021), as in BLIP-2's bridge from another
frozen encoder (Li et al. 2023). Unlike the one vector of ``sentence``, the states still say what stands where. A gate
for each slot lets it fall back to what no text says: a slot that has found nothing need not pass noise on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from latentwire.encoders.base import EncoderConfig
from latentwire.encoders.blocks import Block
from latentwire.encoders.byte import sinusoid
from latentwire.encoders.sentence import SentenceEncoderConfig, SentenceReading


@EncoderConfig.register_subclass("sentence-tokens")
@dataclass
class SentenceTokensConfig(SentenceEncoderConfig):
    """init: checkpoint directory or hub id of a sentence encoder (any transformers encoder; it stays frozen). width,
    heads, layers: of the cross-attention blocks. fixed: a text has window / ratio latents whatever its length.
    """

    width: int = 256
    heads: int = 4
    layers: int = 1

    def build(self, assets: Path | None = None) -> SentenceTokensEncoder:
        return SentenceTokensEncoder(self, assets)


class SentenceTokensEncoder(SentenceReading):
    """Tokens [B, T] → frozen states [B, T, E] → queries with places attend to them → gate → z [B, M, D]."""

    config: SentenceTokensConfig

    def __init__(self, config: SentenceTokensConfig, assets: Path | None) -> None:
        super().__init__(config, assets)
        W = config.width
        self.narrow = nn.Linear(self.sentences.width, W)
        self.query = nn.Parameter(torch.randn(W) * 0.02)
        self.blocks = nn.ModuleList(Block(W, config.heads) for _ in range(config.layers))
        self.gate = nn.Linear(W, 1)
        self.out = nn.Linear(W, config.d_z)

    def spread(self, states_BTE: Tensor, vector_BE: Tensor, count_B: Tensor, middle_BM: Tensor) -> Tensor:
        W = self.config.width
        place_T = torch.arange(states_BTE.shape[1], device=states_BTE.device)
        keys_BTW = self.narrow(states_BTE) + sinusoid(place_T, W)
        x_BMW = self.query + sinusoid(middle_BM, W)
        for block in self.blocks:
            x_BMW = block(x_BMW, place_T < count_B[:, None], keys_BTW)
        return self.out(x_BMW * torch.sigmoid(self.gate(x_BMW)))
