"""Collapse watch: names what it saw while it can still be stopped.

The first implementation ended in "the the the" at every loss weight; its own log showed it hundreds of steps earlier,
as first answer tokens that became one and the same.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from latentwire.errors import UserError
from latentwire.training.config import WatchConfig

log = logging.getLogger(__name__)
ACTIONS = ("warn", "stop", "halve")
EVENTS = ("dominating token", "few predictions", "loss going up")
SMOOTH = 0.8  # of the answer loss, from look to look: steps of other ratios have other losses


class Collapsed(UserError):
    """What the watch saw, where it stops a run."""


@dataclass
class CollapseWatch:
    """action: ``warn``, ``stop`` or ``halve``. halve: halves the weights, for ``halve``.

    state: what it has counted, by receiver; plain data, kept in checkpoints, so that a resumed run sees the same.
    """

    config: WatchConfig = field(default_factory=WatchConfig)
    action: str = "warn"
    halve: Callable[[], dict[str, float]] | None = None
    state: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[dict] = field(default_factory=list)

    def look(
        self, step: int, receiver: str, share: float, token: str, variety: float, loss: float
    ) -> list[dict[str, Any]]:
        """Look at one step of questions. share, token: the most frequent predicted first token. variety: kinds of
        predicted tokens per kind of right ones. loss: of the answers (nan where there is none).

        Returns an event for each thing that has now been seen for ``patience`` looks; with ``halve`` the weights have
        been halved, once for all of them. :meth:`act` says them.
        """
        if step <= self.config.after:
            return []
        state = self.state.setdefault(receiver, {"looks": {}, "smooth": None, "lowest": None})
        rising = self.rising(state, loss)
        seen = {
            "dominating token": (
                share >= self.config.share,
                f"{share:.0%} of {receiver}'s first answer tokens are one and the same, {token!r}",
            ),
            "few predictions": (
                variety <= self.config.variety,
                f"{receiver} predicts {variety:.0%} as many kinds of first answer tokens as there are right ones",
            ),
            "loss going up": (rising, f"{receiver}'s answer loss is {_rise(state):.0%} above its lowest"),
        }
        found = []
        for what, (now, words) in seen.items():
            looks = state["looks"][what] = state["looks"].get(what, 0) + 1 if now else 0
            if looks == self.config.patience:
                event = {"step": step, "event": what, "receiver": receiver, "share": share, "token": token}
                found.append(event | {"variety": variety, "loss": None if math.isnan(loss) else loss, "words": words})
        if found and self.action == "halve" and self.halve is not None:
            halved = self.halve()
            found = [event | {"halved": halved} for event in found]
            for other in self.state.values():
                other["looks"] = {}  # what was changed gets as many looks to act before it is changed again
        self.events += found
        return found

    def act(self, events: list[dict[str, Any]]) -> None:
        """Say what was seen. Collapsed: the action is ``stop``."""
        for event in events:
            message = f"step {event['step']}: {event['words']}; the wire may be collapsing"
            if "halved" in event:
                message += f"; objectives on questions now count by these factors: {event['halved']}"
            if self.action == "stop":
                raise Collapsed(f"{message}; stopped, the last checkpoint is kept (on_collapse=warn goes on)")
            log.warning(message)

    def rising(self, state: dict[str, Any], loss: float) -> bool:
        """Whether the smoothed loss is far above its lowest."""
        if not math.isfinite(loss):
            return False
        smooth = state["smooth"]
        state["smooth"] = smooth = loss if smooth is None else SMOOTH * smooth + (1 - SMOOTH) * loss
        state["lowest"] = smooth if state["lowest"] is None else min(smooth, state["lowest"])
        return smooth > (1 + self.config.rise) * state["lowest"]


def still_seen(state: dict[str, dict[str, Any]], patience: int) -> dict[str, list[str]]:
    """What the watch still saw when ``state`` was kept, by receiver: its events whose last ``patience`` looks found the
    same. A receiver of which it saw nothing any more is left out."""
    seen = {
        receiver: [what for what in EVENTS if counted["looks"].get(what, 0) >= patience]
        for receiver, counted in state.items()
    }
    return {receiver: events for receiver, events in seen.items() if events}


def _rise(state: dict[str, Any]) -> float:
    return state["smooth"] / state["lowest"] - 1 if state["smooth"] and state["lowest"] else 0.0
