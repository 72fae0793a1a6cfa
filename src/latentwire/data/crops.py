"""Passages of people's questions, cut differently: there are few of them, and a wire learns them by heart.

Whole sentences are left out at the beginning and at the end. What a latent stands for is shifted with the first of
them, so the same words arrive in other spans, at other places.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from random import Random

from latentwire.data.cloze import SENTENCE
from latentwire.types import Example


def cropped(examples: Iterable[Example], copies: int, seed: int) -> list[Example]:
    """Up to ``copies`` shorter copies of each context, different from it and from one another, with their questions.

    At least half of the sentences stay, in one piece. A question stays if an answer of its own stands in them and
    nowhere in what was left out: it may have been asked about that. Deterministic for a seed and an order of examples.
    """
    by_context: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_context[example.context].append(example)
    return [
        row for number, (context, rows) in enumerate(by_context.items())
        for row in _copies(context, rows, copies, Random(f"{seed}-{number}"))
    ]  # fmt: skip


def _copies(context: str, rows: list[Example], copies: int, rng: Random) -> list[Example]:
    # offsets of sentences, so that what stays is a piece of the context to the letter
    starts = [0, *(match.end() for match in SENTENCE.finditer(context)), len(context)]
    many = len(starts) - 1
    choices = [
        (first, last)
        for first in range(many)
        for last in range(first, many)
        if many > last - first + 1 >= (many + 1) // 2
    ]
    made = []
    for copy, (first, last) in enumerate(rng.sample(choices, min(copies, len(choices)))):
        kept = context[starts[first] : starts[last + 1]].strip()
        left_out = context[: starts[first]], context[starts[last + 1] :]
        made += [
            replace(row, id=f"{row.id}/{copy}", context=kept)
            for row in rows
            if row.answers and row.answers[0] in kept and not any(row.answers[0] in part for part in left_out)
        ]
    return made
