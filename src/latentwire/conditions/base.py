"""The two kinds of condition: tokens of text, or latents that may be tampered with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from latentwire.config import Choice
from latentwire.types import Latents


@dataclass(frozen=True)
class TextRow:
    """One question as a text condition sees it.

    context: tokens of the context, tail: tokens of question and anchor, anchor: tokens of the anchor alone, all in the
    receiver's tokenizer. latents: how many latents (K/V positions) the packet of this text takes. packet_bytes: its
    exact size. text: the context itself.
    """

    text: str
    context: list[int]
    tail: list[int]
    anchor: list[int]
    latents: int
    packet_bytes: int


@dataclass(frozen=True)
class Given:
    """What the receiver gets: context tokens, or a context text to be tokenised (``text``), and the tail."""

    context: list[int] | None
    tail: list[int]
    text: str | None = None


@dataclass
class Condition(Choice):
    """by_ratio, by_bits: whether the condition differs between ratios or bits; where not, it is measured once."""

    by_ratio: ClassVar[bool] = False
    by_bits: ClassVar[bool] = False


class TextCondition(Condition):
    """Gives text, or a part of it."""

    def give(self, row: TextRow) -> Given:
        raise NotImplementedError


class LatentCondition(Condition):
    """Gives latents, or a control made from them."""

    by_ratio = True

    def change(self, latents: Latents, articles: list[str], seed: int) -> Latents:
        """Latents of all texts (float32, on any device) as this condition hands them on. ``articles``: of each text."""
        raise NotImplementedError


def generator(seed: int) -> torch.Generator:
    """A source of luck that is the same on every device."""
    return torch.Generator().manual_seed(seed)
