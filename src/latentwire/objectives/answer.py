"""Cross-entropy of the answer and its end token, teacher forced: the task itself.

An answer is a handful of tokens, the question in front of it three times as many, and it speaks about the passage too:
what a reader with the text makes of it can be learnt for nothing, since the row is read anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Passages, Rows


@ObjectiveConfig.register_subclass("answer")
@dataclass
class AnswerConfig(ObjectiveConfig):
    """question: weight of each token of the question, from 0 to below 1; those of the answer have 1."""

    question: float = 0.0

    def build(self) -> Answer:
        if not 0 <= self.question < 1:
            raise UserError(f"answer.question is a weight from 0 to below 1, not {self.question}")
        return Answer(self)


class Answer(Objective):
    """Question rows as they stand, in the layout used at inference."""

    config: AnswerConfig
    source = "questions"

    def cut(self, passages: Passages, width: int, generator: torch.Generator) -> Rows | None:
        if passages.questions_BRT is None or passages.asks_BR is None or passages.length_BR is None:
            return None
        place_T = torch.arange(passages.questions_BRT.shape[-1], device=passages.count_B.device)
        target = (place_T >= passages.asks_BR[..., None]) & (place_T < passages.length_BR[..., None])
        if not self.config.question:
            return Rows(passages.questions_BRT, target)
        asked = (place_T >= 1) & (place_T < passages.asks_BR[..., None])
        return Rows(passages.questions_BRT, target | asked, target + self.config.question * asked)
