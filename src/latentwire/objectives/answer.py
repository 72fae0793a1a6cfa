"""Cross-entropy of the answer and its end token, teacher forced: the task itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentwire.objectives.base import Objective, ObjectiveConfig, Passages, Rows


@ObjectiveConfig.register_subclass("answer")
@dataclass
class AnswerConfig(ObjectiveConfig):
    def build(self) -> Answer:
        return Answer(self)


class Answer(Objective):
    """Question rows as they stand; the loss is on the answer alone, in the layout used at inference."""

    source = "questions"

    def cut(self, passages: Passages, width: int, generator: torch.Generator) -> Rows | None:
        if passages.questions_BRT is None or passages.asks_BR is None or passages.length_BR is None:
            return None
        place_T = torch.arange(passages.questions_BRT.shape[-1], device=passages.count_B.device)
        target = (place_T >= passages.asks_BR[..., None]) & (place_T < passages.length_BR[..., None])
        return Rows(passages.questions_BRT, target)
