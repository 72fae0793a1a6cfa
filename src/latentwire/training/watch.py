"""Collapse watch: names what it saw while it can still be stopped.

The first implementation ended in "the the the" at every loss weight; its own log showed it hundreds of steps earlier,
as first answer tokens that became one and the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from latentwire.errors import UserError

log = logging.getLogger(__name__)


@dataclass
class CollapseWatch:
    """share: a first token that makes up this share of a batch's predictions is dominating. patience: how many looks
    in a row. action: ``warn`` or ``stop``."""

    action: str = "warn"
    share: float = 0.8
    patience: int = 5
    run: dict[str, int] = field(default_factory=dict)
    events: list[dict] = field(default_factory=list)

    def look(self, step: int, receiver: str, share: float, answer_loss: float) -> str | None:
        """A message once predictions have been collapsed for ``patience`` looks; raises if the action is ``stop``."""
        self.run[receiver] = self.run.get(receiver, 0) + 1 if share >= self.share else 0
        if self.run[receiver] != self.patience:
            return None
        message = (
            f"step {step}: {share:.0%} of {receiver}'s first answer tokens are one and the same "
            f"(answer loss {answer_loss:.2f}); the wire may be collapsing"
        )
        self.events.append({"step": step, "receiver": receiver, "share": share})
        if self.action == "stop":
            raise UserError(f"{message}; stopped, the last checkpoint is kept (train.on_collapse=warn goes on)")
        log.warning(message)
        return message
