"""Weights that change while training goes on."""

from __future__ import annotations

from dataclasses import dataclass

from latentwire.errors import UserError


@dataclass
class Schedule:
    """A weight over training progress (0 at the first step, 1 at the last).

    kind ``constant``: ``value`` throughout. ``linear``: from ``start_value`` to ``value`` between ``begin`` and
    ``end``. ``delayed``: nothing before ``begin``, then ``value``.

    >>> Schedule(value=2.0, kind="linear", begin=0.0, end=0.5).at(0.25)
    1.0
    """

    value: float = 1.0
    kind: str = "constant"
    start_value: float = 0.0
    begin: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("constant", "linear", "delayed"):
            raise UserError(f"schedule kind {self.kind!r} is unknown; there are: constant, linear, delayed")

    def at(self, progress: float) -> float:
        """The weight at ``progress`` in [0, 1]."""
        if self.kind == "constant":
            return self.value
        if self.kind == "delayed":
            return self.value if progress >= self.begin else 0.0
        span = max(self.end - self.begin, 1e-9)
        share = min(max((progress - self.begin) / span, 0.0), 1.0)
        return self.start_value + share * (self.value - self.start_value)
