"""What became of a run beside its base: ``improved``, ``stable``, ``degraded`` or ``collapsed``.

Each row of the rank's condition (receiver, ratio, bits) is compared with the base run's: ``improved`` and ``degraded``
if its whole 95 % interval of F1 lies above or below the base's whole interval, ``stable`` where they meet. That
intervals do not meet is a stricter test than that the difference is not zero: with few questions much is stable.

``collapsed`` is a receiver's run that the collapse watch stopped for it; or one that is degraded, and of which the
watch still saw a collapse when training ended. A wire that starts from nothing predicts few tokens at first, so what
the watch said on the way counts for nothing if it passed.
"""

from __future__ import annotations

from typing import Any

VERDICTS = ("collapsed", "degraded", "improved", "stable")
"""The first of these that holds of any receiver is the run's."""


def verdicts(line: dict[str, Any], base: dict[str, Any], condition: str) -> dict[str, str]:
    """The verdict of each receiver of the base, by name; of a run whose lines of the history these are. Empty where
    the base has nothing to compare with (it was stopped itself, or ``condition`` does not apply)."""
    measured = {_key(row): row["f1_ci"] for row in _rows(line, condition)}
    found: dict[str, list[str]] = {}
    for row in _rows(base, condition):
        receiver, here = row["receiver"], measured.get(_key(row))
        if line["stopped"]:
            found.setdefault(receiver, []).append("collapsed")
        elif here is not None:
            word = compared(here, row["f1_ci"])
            gone = word == "degraded" and receiver in line["ended"]
            found.setdefault(receiver, []).append("collapsed" if gone else word)
    return {receiver: worst(words) for receiver, words in found.items()}


def compared(interval: list[float], base: list[float]) -> str:
    """``improved``, ``degraded`` or ``stable`` by two intervals (low, high).

    >>> compared([0.4, 0.5], [0.2, 0.3]), compared([0.1, 0.2], [0.2, 0.3])
    ('improved', 'stable')
    """
    if interval[0] > base[1]:
        return "improved"
    return "degraded" if interval[1] < base[0] else "stable"


def worst(words: list[str]) -> str:
    """One word for several: what is lost anywhere is not made up for elsewhere."""
    return min(words, key=VERDICTS.index)


def _rows(line: dict[str, Any], condition: str) -> list[dict[str, Any]]:
    return [row for row in line["rows"] if row["condition"] == condition and row["f1"] is not None]


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["receiver"], row["ratio"], row["bits"]
