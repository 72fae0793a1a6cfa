"""An answer while it is written: where it stops, and what of it may be shown already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

TORN = "\ufffd"
"""What a tokenizer gives for the first bytes of a character whose others are still to come."""


class Growing:
    """Tokens of one row, as text.

    most: tokens at most. stops: texts in front of which the answer ends. The whole is what decoding gives offline:
    without special tokens and without the space around it. What is shown of it piece by piece adds up to the same.
    """

    def __init__(self, decode: Callable[[list[int]], str], most: int, stops: Sequence[str] = ()) -> None:
        self.decode, self.most, self.stops = decode, most, tuple(stops)
        self.ids: list[int] = []
        self.cut: str | None = None
        self.shown = ""

    def take(self, token: int) -> str | None:
        """One token more; says why the answer ends with it: ``stop``, ``length``, or None where it goes on."""
        self.ids.append(token)
        if self.stops:
            raw = self.decode(self.ids)
            found = [place for stop in self.stops if (place := raw.find(stop)) >= 0]
            if found:
                self.cut = raw[: min(found)]
                return "stop"
        return "length" if len(self.ids) == self.most else None

    def text(self) -> str:
        """All of it, as it is now."""
        return (self.decode(self.ids) if self.cut is None else self.cut).strip()

    def fresh(self, ended: bool = False) -> str:
        """What may be shown now and was not before: nothing that could still turn into something else."""
        if ended:
            sure = self.text()
        else:
            raw = self.decode(self.ids).rstrip(TORN)
            sure = raw[: len(raw) - begun(raw, self.stops)].strip()
        if not sure.startswith(self.shown):
            return ""
        piece = sure[len(self.shown) :]
        self.shown = sure
        return piece


def begun(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of ``text`` may be the beginning of a stop.

    >>> begun("Oslo, th", ["the", "x"])
    2
    """
    longest = max((len(stop) - 1 for stop in stops), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops if len(stop) > length):
            return length
    return 0
