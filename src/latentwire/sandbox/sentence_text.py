"""What a sentence encoder learns from: articles tokenised once, and pairs of windows of one article.

Two windows of one article speak of the same thing in other words, so each is the other's positive (the idea of the
inverse cloze task, Lee et al. 2019, and of Contriever, Izacard et al. 2021): plain text is all that is needed. They
never overlap, or shared words would be enough to find one by the other.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentwire.data.progress import progress
from latentwire.data.text import iter_articles, text_files
from latentwire.errors import UserError
from latentwire.sandbox import tokenizers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS = tokenizers.PAD, tokenizers.BOS, tokenizers.EOS
TOGETHER = 512  # articles that are tokenised at once


@dataclass(frozen=True)
class SentenceConfig:
    """How a sentence encoder is made: a BERT from scratch, on pairs of windows of the same article.

    window, shortest: tokens of a window at most and at least; articles of fewer than two shortest windows are left out.
    aside: one article in so many is held out, and measured on. steps, batch: optimiser steps of so many pairs, each
    pair's negatives being all others. rate, warmup: peak learning rate and the steps to it; then it falls in a half
    cosine. temperature: by which cosines are divided. limit: articles read at most (0: all). save_every: steps between
    the states that a killed run goes on from.
    """

    name: str = "sentence"
    seed: int = 1
    vocabulary: int = 12000
    width: int = 256
    layers: int = 6
    heads: int = 4
    ff: int = 1024
    positions: int = 258
    window: int = 128
    shortest: int = 24
    aside: int = 50
    steps: int = 10000
    batch: int = 256
    rate: float = 5e-4
    warmup: int = 500
    temperature: float = 0.05
    decay: float = 0.01
    limit: int = 0
    log_every: int = 50
    save_every: int = 1000
    device: str = "auto"
    out: str = "runs/encoders"


@dataclass(frozen=True)
class Articles:
    """Tokenised articles behind one another. ids: uint16 or uint32 [N]. start_A, length_A: int64, where each stands.
    held_A: bool, those that are measured on and never learnt from. short: articles left out as too short."""

    ids: np.ndarray
    start_A: np.ndarray
    length_A: np.ndarray
    held_A: np.ndarray
    short: int

    def numbers(self, held: bool) -> np.ndarray:
        """Of the articles that are held out, or of the others."""
        return np.flatnonzero(self.held_A == held)

    def pairs(
        self, article_B: np.ndarray, config: SentenceConfig, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Two windows of each article, one from either half: ids int64 [2, B, window + 2] with a beginning and an end,
        and counts int64 [2, B] that include these."""
        B, T = len(article_B), config.window
        half_B = self.length_A[article_B] // 2
        room_2B = np.stack([half_B, self.length_A[article_B] - half_B])
        wanted_2B = rng.integers(config.shortest, T + 1, (2, B))
        count_2B = np.minimum(wanted_2B, room_2B)
        offset_2B = (rng.random((2, B)) * (room_2B - count_2B + 1)).astype(np.int64) + np.stack([0 * half_B, half_B])
        place_2BT = (self.start_A[article_B] + offset_2B)[..., None] + np.arange(T)
        inside_2BT = np.arange(T) < count_2B[..., None]
        ids_2BT = np.full((2, B, T + 2), PAD, np.int64)
        ids_2BT[..., 1:-1] = np.where(inside_2BT, self.ids[np.minimum(place_2BT, len(self.ids) - 1)], PAD)
        ids_2BT[..., 0] = BOS
        np.put_along_axis(ids_2BT, count_2B[..., None] + 1, EOS, -1)
        return ids_2BT, count_2B + 2


def fit_tokenizer(texts: Iterable[str], vocabulary: int, folder: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE as the readers have it, with ``<s>`` and ``</s>`` around a text, written to ``folder``.

    Not BERT's WordPiece: the library's trainer gives its pieces other ids each time, so no run could be made again.
    """
    from tokenizers import processors

    made: Any = tokenizers.train("bpe", vocabulary, texts)
    begin, end = tokenizers.SPECIAL[tokenizers.BOS], tokenizers.SPECIAL[tokenizers.EOS]
    made.post_processor = processors.TemplateProcessing(
        f"{begin} $A {end}", special_tokens=[(begin, tokenizers.BOS), (end, tokenizers.EOS)]
    )
    tokenizers.save(made, folder / "tokenizer.json")
    return tokenizers.load(folder / "tokenizer.json")


def is_held(article: str, aside: int) -> bool:
    """Whether an article is held out: decided by its beginning alone, so by no order of files."""
    return int.from_bytes(hashlib.sha1(article[:200].encode()).digest()[:4], "big") % aside == 0


def tokenise(config: SentenceConfig, data: Path, folder: Path) -> tuple[Articles, PreTrainedTokenizerFast]:
    """Tokenizer and articles of a run, made once and kept in its folder. UserError: too little text."""
    kept = folder / "articles.npz"
    if kept.exists():
        with np.load(kept, allow_pickle=False) as file:
            articles = Articles(file["ids"], file["start"], file["length"], file["held"], int(file["short"]))
        return articles, tokenizers.load(folder / "tokenizer.json")

    def texts() -> Iterator[str]:
        return iter_articles(data, config.limit or None)

    # what is measured on has no part in the vocabulary either
    learnt = (text for text in texts() if not is_held(text, config.aside))
    tokenizer = fit_tokenizer(learnt, config.vocabulary, folder)
    parts, held, short = [], [], 0
    rest = texts()
    with progress("articles") as show:
        while batch := list(itertools.islice(rest, TOGETHER)):
            for article, ids in zip(batch, tokenizer(batch, add_special_tokens=False)["input_ids"], strict=True):
                if len(ids) < 2 * config.shortest:
                    short += 1
                    continue
                parts.append(np.array(ids, np.uint16 if config.vocabulary <= 1 << 16 else np.uint32))
                held.append(is_held(article, config.aside))
            show(len(parts), f"{len(parts):,} tokenised")
    count = {state: held.count(state) for state in (True, False)}
    if min(count.values()) < 2:
        raise UserError(
            f"{count[False]} articles to learn from and {count[True]} held out; each needs 2 (of {2 * config.shortest} "
            "tokens or more): give more text, or lower aside or shortest"
        )
    length_A = np.array([len(part) for part in parts], np.int64)
    articles = Articles(np.concatenate(parts), np.cumsum(length_A) - length_A, length_A, np.array(held), short)
    partial = folder / f".{os.getpid()}.npz"
    with partial.open("wb") as file:
        np.savez(file, ids=articles.ids, start=articles.start_A, length=length_A, held=articles.held_A, short=short)
    partial.replace(kept)
    return articles, tokenizer


def sources(data: Path) -> list[str]:
    """Names of the files of text that a run reads."""
    return [path.name for path in text_files(data)]
