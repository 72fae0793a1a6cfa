"""Weights that change while training goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from latentwire.errors import UserError

KINDS = ("constant", "linear", "cosine", "delayed", "gated")


@dataclass
class Schedule:
    """A weight over training progress (0 at the first step, 1 at the last).

    kind ``constant``: ``value`` throughout. ``linear``: from ``start_value`` to ``value`` between ``begin`` and
    ``end``. ``cosine``: from ``start_value`` up to its peak ``value`` halfway between ``begin`` and ``end``, and down
    again, as a cosine does. ``delayed``: nothing before ``begin``, then ``value``. ``gated``: ``value`` from ``begin``
    on, while what objective ``after`` reconstructs is good enough: the cosine that it measures, smoothed over training
    with a half-life of ``over`` steps and 0 at first, has reached ``threshold`` (see ``gate.py``).

    An objective whose weight is 0 at a step costs nothing there, unless a gate holds it at 0.

    >>> Schedule(value=2.0, kind="linear", begin=0.0, end=0.5).at(0.25)
    1.0
    >>> [round(Schedule(kind="cosine", end=0.8).at(share), 2) for share in (0, 0.2, 0.4, 0.6, 0.9)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    value: float = 1.0
    kind: str = "constant"
    start_value: float = 0.0
    begin: float = 0.0
    end: float = 1.0
    after: str = ""
    threshold: float = 0.7
    over: float = 50.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"schedule kind {self.kind!r} is unknown; there are: {', '.join(KINDS)}")
        if self.kind in ("linear", "cosine") and self.begin > self.end:
            raise UserError(f"a {self.kind} schedule begins ({self.begin}) before it ends, not at {self.end}")
        if (self.kind == "gated") != bool(self.after):
            raise UserError(
                "a gated weight waits for an objective: give both kind: gated and after: (its name), or neither"
            )
        if not -1 <= self.threshold <= 1:
            raise UserError(f"the threshold of a gate is a cosine from -1 to 1, not {self.threshold}")
        if self.over <= 0:
            raise UserError(f"a gate's measure is smoothed over some steps, above 0, not {self.over}")

    def at(self, progress: float) -> float:
        """The weight at ``progress`` in [0, 1], of an open gate."""
        if self.kind == "constant":
            return self.value
        if self.kind in ("delayed", "gated"):
            return self.value if progress >= self.begin else 0.0
        span = max(self.end - self.begin, 1e-9)
        share = min(max((progress - self.begin) / span, 0.0), 1.0)
        if self.kind == "cosine":
            share = 0.5 * (1 - math.cos(2 * math.pi * share))
        return self.start_value + share * (self.value - self.start_value)
