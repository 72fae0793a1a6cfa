"""A receiver's own words, told what they mean by a frozen sentence encoder, through an interlingua to the slots.

From the first implementation. Words of one receiver stand in coordinates that no other receiver knows. Each attends to
the states of a frozen sentence encoder for the same text, the semantic anchor, which belongs to no receiver; a small
transformer and a pooler then make one vector of every few spans (the interlingua), and it is expanded to their slots.
The states a word attends to are those of the whole piece, so the two tokenizers need not agree where words end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentwire.encoders.base import EncoderConfig, Source, cut, fill
from latentwire.encoders.blocks import Block
from latentwire.encoders.byte import sinusoid
from latentwire.encoders.poolers import Reader
from latentwire.encoders.sentence_model import SentenceModel
from latentwire.encoders.tokens import TokenEncoder, word_table, write_shape
from latentwire.errors import UserError
from latentwire.receivers.tokenizer import tokenizer_hash
from latentwire.types import Latents


@EncoderConfig.register_subclass("aligned")
@dataclass
class AlignedEncoderConfig(EncoderConfig):
    """init: checkpoint directory or hub id of a causal LM, whose tokenizer and input embeddings are used. train_words:
    the embeddings learn too (they are frozen otherwise). anchor: of a sentence encoder (any transformers encoder; it
    stays frozen). stretch: anchor tokens for each token of a window; a piece that takes more, or more than the anchor
    reads, is halved.

    width, layers, heads: of the attention to the anchor and of the transformer behind it. group: slots that one vector
    of the interlingua is expanded to.
    """

    init: str = ""
    anchor: str = ""
    train_words: bool = False
    stretch: float = 1.5
    width: int = 256
    layers: int = 2
    heads: int = 4
    group: int = 4

    def build(self, assets: Path | None = None) -> AlignedEncoder:
        if assets is None and self.init and not self.anchor:
            raise UserError("encoder.anchor is empty: name the checkpoint of a sentence encoder, BERT or the like")
        return AlignedEncoder(self, assets)


class AlignedEncoder(TokenEncoder):
    """Words [B, T] attend to anchor states [B, A, E] → transformer → interlingua → slots → linear → z [B, M, D]."""

    config: AlignedEncoderConfig

    def __init__(self, config: AlignedEncoderConfig, assets: Path | None) -> None:
        super().__init__()
        self.config = config
        where = self._start(config.init, assets and assets / "words")
        self.words = word_table(where, assets and assets / "words").requires_grad_(config.train_words)
        self.sentences = SentenceModel(config.anchor, assets and assets / "sentences")
        self.room = min(self.sentences.room, int(config.window * config.stretch))
        if self.room < 1:
            raise UserError(f"encoder.window {config.window} and stretch {config.stretch} leave the anchor no token")
        W = config.width
        self.narrow, self.meaning = nn.Linear(self.words.embedding_dim, W), nn.Linear(self.sentences.width, W)
        self.align = Block(W, config.heads)
        self.reader = Reader(
            W, width=W, layers=config.layers, heads=config.heads, pooler="expand", group=config.group,
            ratios=config.ratios,
        )  # fmt: skip
        self.out = nn.Linear(W, config.d_z)

    def prepare(self, texts: list[str], width: int | None = None) -> Source:
        spaced = [f"{self.lead}{text}" if text else "" for text in texts]
        tokens = self.tokenizer(spaced, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        pieces, _ = cut(tokens["input_ids"], self.config.window)
        chosen = self._anchored(spaced, tokens["offset_mapping"], pieces)
        pieces = [piece for piece, _ in chosen]
        begin, end = self.sentences.begin, self.sentences.end
        arrays = {
            "ids": fill([tokens["input_ids"][text][a:b] for text, a, b in pieces], width),
            "count": fill([[b - a] for _, a, b in pieces], 1)[:, 0],
            "anchor": fill(
                [[*begin, *ids, *end] for _, ids in chosen],
                None if width is None else self.room + len(begin) + len(end),
            ),
            "anchor_count": fill([[len(ids)] for _, ids in chosen], 1)[:, 0],
        }
        return Source(arrays, np.array([text for text, _, _ in pieces], dtype=np.int64), len(texts))

    def _anchored(
        self, texts: list[str], offsets: list[list[tuple[int, int]]], pieces: list[tuple[int, int, int]]
    ) -> list[tuple[tuple[int, int, int], list[int]]]:
        """Pieces with the anchor's tokens for the same characters; those with too many are halved until they fit."""
        parts = [texts[text][offsets[text][a][0] : offsets[text][b - 1][1]] for text, a, b in pieces]
        found = self.sentences.tokenizer(parts, add_special_tokens=False, verbose=False)["input_ids"]
        fitting = []
        for (text, a, b), ids in zip(pieces, found, strict=True):
            if len(ids) <= self.room:
                fitting.append(((text, a, b), ids))
            elif b - a == 1:
                raise UserError(
                    f"text {text}: one token is {len(ids)} of the anchor's, which reads {self.room}; raise "
                    "encoder.stretch"
                )
            else:
                middle = (a + b) // 2
                fitting += self._anchored(texts, offsets, [(text, a, middle), (text, middle, b)])
        return fitting

    def reads(self) -> dict[str, Any]:
        words = [tokenizer_hash(tokenizer) for tokenizer in (self.tokenizer, self.sentences.tokenizer)]
        return {"type": "aligned", "window": self.config.window, "room": self.room, "words": words}

    def forward(self, batch: dict[str, Tensor], ratio: int) -> Latents:
        self.check_ratio(ratio)
        ids_BT, count_B = batch["ids"].long(), batch["count"].long()
        many_B = batch["anchor_count"].long()
        states_BAE, _ = self.sentences(batch["anchor"].long(), many_B)
        W, device = self.config.width, ids_BT.device
        place_A, place_T = (torch.arange(n, device=device) for n in (states_BAE.shape[1], ids_BT.shape[1]))
        # the two tokenizers count apart: anchor tokens are told where they stand among the words
        own_BTW = self.narrow(self.words(ids_BT)) + sinusoid(place_T.expand_as(ids_BT), W)
        told_BAW = self.meaning(states_BAE) + sinusoid(place_A * (count_B / many_B.clamp_min(1))[:, None], W)
        own_BTW = self.align(own_BTW, place_A < many_B.clamp_min(1)[:, None], told_BAW)
        return self.finish(self.out(self.reader(own_BTW, count_B, ratio)), count_B, ratio)

    def save_assets(self, directory: Path) -> None:
        (directory / "words").mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(directory / "words")
        write_shape(directory / "words", self.words.num_embeddings, self.words.embedding_dim)
        self.sentences.save_assets(directory / "sentences")
