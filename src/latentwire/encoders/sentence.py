"""A frozen sentence encoder's one vector, spread over the slots: what a text is about, and hardly what it says.

From the first implementation. Every slot of a piece gets the same vector, mapped by one linear layer, and is told apart
by its query alone (a learned one, and where in the text it stands), so a piece cannot say more than one vector does:
the floor for what is built on sentence encoders (Sentence-BERT, Reimers & Gurevych 2019). Sentence vectors are made to
compare texts; their words can be had back from them only in part (Morris et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from latentwire.encoders.base import EncoderConfig, Source
from latentwire.encoders.byte import sinusoid
from latentwire.encoders.sentence_model import SentenceModel
from latentwire.encoders.spans import piece_numbers, slots_of
from latentwire.encoders.tokens import TokenEncoder
from latentwire.errors import UserError
from latentwire.types import Latents

PLACES = 64  # sines and cosines that say where a slot stands


@EncoderConfig.register_subclass("sentence")
@dataclass
class SentenceEncoderConfig(EncoderConfig):
    """init: checkpoint directory or hub id of a sentence encoder (any transformers encoder; it stays frozen). pool:
    ``mean`` over its tokens, or its own ``pooler``. window: its tokens that make one vector; a longer text has several.
    fixed: a text has window / ratio latents whatever its length.
    """

    init: str = ""
    pool: str = "mean"
    fixed: bool = False

    def build(self, assets: Path | None = None) -> SentenceReading:
        return SentenceEncoder(self, assets)


class SentenceReading(TokenEncoder):
    """What encoders with a sentence encoder inside share: its tokens, its pieces, its slots."""

    config: SentenceEncoderConfig
    lead = ""  # a sentence encoder was trained on texts as they are

    def __init__(self, config: SentenceEncoderConfig, assets: Path | None) -> None:
        super().__init__()
        if assets is None and not config.init:
            raise UserError("encoder.init is empty: name the checkpoint of a sentence encoder, BERT or the like")
        self.config = config
        self.sentences = SentenceModel(config.init, assets and assets / "sentences", config.pool)
        self.sentences.check_window(config.window)
        self.tokenizer, self.begin, self.end = self.sentences.tokenizer, self.sentences.begin, self.sentences.end

    def prepare(self, texts: list[str], width: int | None = None) -> Source:
        source = super().prepare(texts, width)
        if self.config.fixed:
            source.arrays["piece"] = piece_numbers(source.owner_P)
        return source

    def forward(self, batch: dict[str, Tensor], ratio: int) -> Latents:
        self.check_ratio(ratio)
        ids_BT, count_B = batch["ids"].long(), batch["count"].long()
        states_BTE, vector_BE = self.sentences(ids_BT, count_B)
        window = self.config.window if self.config.fixed else 0
        slots = slots_of(batch, states_BTE.shape[1], ratio, window)
        z_BMD = self.spread(states_BTE, vector_BE, count_B, slots.middle_BM)
        return self.finish(z_BMD, count_B, ratio, slots.mask_BM)

    def spread(self, states_BTE: Tensor, vector_BE: Tensor, count_B: Tensor, middle_BM: Tensor) -> Tensor:
        """Latents [B, M, D], not yet normalised, from token states and vectors of pieces; ``middle_BM``: where they
        stand."""
        raise NotImplementedError

    def save_assets(self, directory: Path) -> None:
        self.sentences.save_assets(directory / "sentences")


class SentenceEncoder(SentenceReading):
    """Tokens [B, T] → frozen encoder → one vector [B, E] → linear, beside each slot's query → z [B, M, D]."""

    def __init__(self, config: SentenceEncoderConfig, assets: Path | None) -> None:
        super().__init__(config, assets)
        self.map = nn.Linear(self.sentences.width, config.d_z)
        self.query = nn.Parameter(torch.randn(config.d_z) * 0.02)
        self.place = nn.Linear(PLACES, config.d_z, bias=False)

    def spread(self, states_BTE: Tensor, vector_BE: Tensor, count_B: Tensor, middle_BM: Tensor) -> Tensor:
        return self.map(vector_BE)[:, None] + self.query + self.place(sinusoid(middle_BM, PLACES))
