"""The clock of a readers' run: which phase, how far, what share of the learning rate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from latentwire.errors import UserError


@dataclass(frozen=True)
class Phase:
    """A stretch of training, bounded by ``minutes`` or, if given, ``steps``.

    The rate (as a share of the peak) climbs over ``warmup`` steps, stays at ``start`` to the point ``flat``, then falls
    in a line to ``end``.
    """

    minutes: float = 1.0
    steps: int | None = None
    warmup: int = 0
    flat: float = 0.0
    start: float = 1.0
    end: float = 0.0

    def rate(self, step: int, progress: float) -> float:
        """Share of the peak rate at a step and a progress of 0 … 1."""
        fall = max(0.0, min(1.0, (progress - self.flat) / max(1.0 - self.flat, 1e-9)))
        level = self.start + (self.end - self.start) * fall
        return level * min(1.0, (step + 1) / self.warmup) if self.warmup else level


class Clock:
    """Where a run of several phases stands. By minutes, the number of steps follows from the speed measured so far."""

    def __init__(self, phases: dict[str, Phase]) -> None:
        self.phases = phases
        for name, phase in phases.items():
            if phase.steps is None and phase.minutes <= 0:
                raise UserError(f"phase {name!r} has neither steps nor minutes; give one of them")
        self.name, self.step, self.count, self.seconds = next(iter(phases)), 0, 0, 0.0
        self.total = self._first_total()
        self._since = time.monotonic()

    @property
    def phase(self) -> str:
        """Name of the phase; empty when the run is over."""
        return self.name

    def _first_total(self) -> int:
        phase = self.phases[self.name]
        return phase.steps if phase.steps is not None else 10**6

    @property
    def progress(self) -> float:
        """0 … 1 within the phase."""
        return min(1.0, self.step / self.total) if self.name else 1.0

    @property
    def rate(self) -> float:
        """Share of the peak learning rate for the step to come."""
        return self.phases[self.name].rate(self.step, self.progress)

    @property
    def last(self) -> bool:
        """Whether the step to come is the phase's last as far as is known."""
        return self.step + 1 >= self.total

    def start(self) -> None:
        """Begin to count seconds (after compilation)."""
        self._since = time.monotonic()

    def measure(self) -> None:
        """Count the seconds since the last call; by minutes, say anew how many steps the phase will have."""
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        phase = self.phases[self.name] if self.name else None
        if phase and phase.steps is None:
            speed = (self.step + 1) / max(self.seconds, 1e-9)
            left = 60 * phase.minutes - self.seconds
            self.total = self.step + 1 + max(0, int(left * speed))

    def advance(self) -> None:
        """One step is done."""
        self.step, self.count = self.step + 1, self.count + 1
        if self.step >= self.total:
            names = list(self.phases)
            following = names[names.index(self.name) + 1 :]
            self.name, self.step, self.seconds = (following[0] if following else ""), 0, 0.0
            if self.name:
                self.total = self._first_total()

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {k: getattr(self, k) for k in ("name", "step", "count", "seconds", "total")}

    def load(self, state: dict[str, Any]) -> None:
        """Take up :meth:`state`."""
        for key, value in state.items():
            setattr(self, key, value)
