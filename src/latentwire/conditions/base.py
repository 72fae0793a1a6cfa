"""The two kinds of condition: a part of the text, or latents that may be tampered with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from latentwire.config import Choice
from latentwire.types import Latents


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
    """What decides whether a condition applies: for each example its article, and bytes of packet and of plain text."""

    articles: list[str]
    packet_bytes: list[int]
    text_bytes: list[int]


@dataclass
class Condition(Choice):
    """by_ratio, by_bits: whether the condition differs between ratios or bits; where not, it is measured once."""

    by_ratio: ClassVar[bool] = False
    by_bits: ClassVar[bool] = False

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


def generator(seed: int) -> torch.Generator:
    """A source of luck that is the same on every device."""
    return torch.Generator().manual_seed(seed)
