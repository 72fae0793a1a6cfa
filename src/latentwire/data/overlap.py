"""Finds texts that hold a passage which results are measured on, so that nobody trains on it by accident."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

GRAM = 8
"""Words in a row that count as one piece of a passage."""

SHARE = 0.5
"""A text that holds more than this share of a passage's pieces holds the passage."""

_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Overlap:
    """Passages, by their runs of eight words.

    >>> held = Overlap(["One two three four five six seven eight nine ten."])
    >>> held.within("It began: one, two, three; four, five, six, seven, eight, nine, ten!")
    True
    >>> held.within("One two three four.")
    False
    """

    def __init__(self, passages: Iterable[str]) -> None:
        self._number: dict[str, int] = {}
        pieces, owners, self._many = [], [], []
        for owner, passage in enumerate(dict.fromkeys(passages)):
            words = _WORD.findall(passage.lower())
            ids = np.array([self._number.setdefault(word, len(self._number) + 1) for word in words], np.uint64)
            found = np.unique(_grams(ids))
            pieces.append(found)
            owners.append(np.full(len(found), owner))
            self._many.append(len(found))
        self._pieces = np.concatenate([*pieces, np.empty(0, np.uint64)])
        self._owners = np.concatenate([*owners, np.empty(0, np.int64)]).astype(np.int64)
        order = np.argsort(self._pieces, kind="stable")
        self._pieces, self._owners = self._pieces[order], self._owners[order]

    def within(self, text: str) -> bool:
        """Whether ``text`` holds more than half of the pieces of any one passage."""
        number = self._number
        ids = np.array([number.get(word, 0) for word in _WORD.findall(text.lower())], np.uint64)
        grams = np.unique(_grams(ids))
        # a piece may be of several passages: all of its places between left and right
        left = np.searchsorted(self._pieces, grams, "left")
        right = np.searchsorted(self._pieces, grams, "right")
        hit = right > left
        if not hit.any():
            return False
        places = np.concatenate([np.arange(a, b) for a, b in zip(left[hit], right[hit], strict=True)])
        counts = np.bincount(self._owners[places], minlength=len(self._many))
        return bool((counts > SHARE * np.array(self._many)).any())


def _grams(ids: np.ndarray) -> np.ndarray:
    """A number for each run of eight known words (known: above 0), by a polynomial modulo 2^64."""
    runs = len(ids) - GRAM + 1
    if runs <= 0:
        return np.empty(0, np.uint64)
    total, known = np.zeros(runs, np.uint64), np.ones(runs, bool)
    for offset in range(GRAM):
        part = ids[offset : offset + runs]
        total = total * _FACTOR + part
        known &= part > 0
    return total[known]
