"""The three kinds of condition: a part of the text, latents that may be tampered with, vectors of the receiver's own.

What is done for the third kind with the numbers of a receiver stands in ``conditions/vectors.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from latentwire.config import Choice
from latentwire.types import Latents

if TYPE_CHECKING:
    from latentwire.conditions.vectors import Maker, Reader


@dataclass(frozen=True)
class TextRow:
    """One question as a text condition sees it, in tokens of the receiver.

    text: the context. context: how many tokens it has. tail: tokens of question and anchor. anchor: tokens of the
    anchor alone. slots: how many K/V positions the latents of the text's packet take. room: bytes of the packet that
    are left for the context (all of them in context mode; in prompt mode those that the question does not take).
    """

    text: str
    context: int
    tail: list[int]
    anchor: list[int]
    slots: int
    room: int


@dataclass(frozen=True)
class Given:
    """What the receiver gets of the context, and the tail behind it.

    keep: its first so many tokens; text: or else a text of the condition's own, tokenised as a context.
    """

    tail: list[int]
    keep: int = 0
    text: str | None = None


@dataclass(frozen=True)
class Data:
    """What decides whether a condition applies: for each example its article, and bytes of packet and of plain text;
    and who reads."""

    articles: list[str]
    packet_bytes: list[int]
    text_bytes: list[int]
    reader: Reader | None = None


@dataclass
class Condition(Choice):
    """by_ratio, by_bits: whether the condition differs between ratios or bits; where not, it is measured once.
    by_default: whether it is measured unless others are asked for."""

    by_ratio: ClassVar[bool] = False
    by_bits: ClassVar[bool] = False
    by_default: ClassVar[bool] = True

    def not_applicable(self, data: Data) -> str | None:
        """Why the condition says nothing on these examples (its row is then n/a), or None."""
        return None


class TextCondition(Condition):
    """Gives text, or a part of it."""

    def give(self, row: TextRow) -> Given:
        raise NotImplementedError


class LatentCondition(Condition):
    """Gives latents, or a control made from them."""

    by_ratio = True

    def sources(self, articles: list[str], seed: int) -> list[int]:
        """For each text, whose latents stand in for it (its own). ``articles``: of each text."""
        return list(range(len(articles)))

    def change(self, latents: Latents, places: list[int], seed: int) -> Latents:
        """Latents of a batch (float32, any device) as they are handed on. ``places``: the number of each text, so that
        what happens to it by luck does not depend on its batch."""
        return latents


class VectorCondition(Condition):
    """Gives vectors of the receiver's embedding width in place of tokens. No encoder has a part in them.

    In context mode they stand for the context, in prompt mode for context and question, as latents do. whole: for
    question and anchor too, but for the anchor's last token, from which decoding begins.
    """

    whole: ClassVar[bool] = False

    def maker(self, reader: Reader) -> Maker:
        """What makes the vectors for one receiver, one ratio and one codec."""
        raise NotImplementedError


def generator(seed: int) -> torch.Generator:
    """A source of luck that is the same on every device."""
    return torch.Generator().manual_seed(seed)
