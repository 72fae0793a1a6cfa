"""Questions of other passages: what the reader with the text would begin to say to them, for a judge to compare with.

There are few questions that people asked, and a wire learns them by heart together with their passages. The frozen
reader answers any question about any text somehow, and a divergence needs no right answer: a question may be asked of
every passage there is. Nobody knows more of such an answer than its beginning, so only its first token is judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Passages, Rows


@ObjectiveConfig.register_subclass("borrowed")
@dataclass
class BorrowedConfig(ObjectiveConfig):
    """rows: questions that each passage of a step borrows of the one before it, which is any other one."""

    rows: int = 2

    def build(self) -> Borrowed:
        if self.rows < 1:
            raise UserError(f"borrowed.rows is a number of questions, at least 1, not {self.rows}")
        return Borrowed(self)


class Borrowed(Objective):
    """Question rows of the passage before it in the step (they stand in random order); their answers are no labels."""

    config: BorrowedConfig
    source = "questions"
    labelled = False

    def cut(self, passages: Passages, width: int, generator: torch.Generator) -> Rows | None:
        if passages.questions_BRT is None or passages.asks_BR is None:
            return None
        rows_BRT, asks_BR = (x[:, : self.config.rows].roll(1, 0) for x in (passages.questions_BRT, passages.asks_BR))
        place_T = torch.arange(rows_BRT.shape[-1], device=rows_BRT.device)
        return Rows(rows_BRT, place_T == asks_BR[..., None])
