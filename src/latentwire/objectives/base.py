"""What every objective is: rows to put behind a passage, and a loss per target token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentwire.config import Choice
from latentwire.objectives.schedule import Schedule


@dataclass(frozen=True)
class KeptTeacher:
    """What the teacher says of each token but the first of question rows, computed earlier (``training/teacher.py``).

    ids [B, R, T - 1, K]: its likeliest tokens. logs [B, R, T - 1, K + 1]: their log-probabilities, then that of all
    other tokens together. Leading sizes may be flattened to one.
    """

    ids: Tensor
    logs: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> KeptTeacher:
        """The same with both tensors changed (rows taken, flattened)."""
        return KeptTeacher(change(self.ids), change(self.logs))

    def divergence(self, logits_NV: Tensor, log_sum_N: Tensor) -> Tensor:
        """KL(teacher || student) over K + 1 outcomes, in nats [N]; ``log_sum_N``: logsumexp of the student's logits."""
        ids_NK, logs_NK = self.ids.long(), self.logs
        rest_N = logits_NV.scatter(-1, ids_NK, float("-inf")).logsumexp(-1)
        student_NK = torch.cat([logits_NV.gather(-1, ids_NK), rest_N[:, None]], -1) - log_sum_N[:, None]
        return (logs_NK.exp() * (logs_NK - student_NK)).sum(-1)


@dataclass(frozen=True)
class Passages:
    """A batch of passages as one receiver sees them, on the training device.

    ids_BT, count_B: the passage's tokens. next_BT, next_count_B: the text that follows it. questions_BRT, asks_BR,
    length_BR: question rows (question, anchor, answer, end) where targets begin at ``asks`` and end before ``length``.
    newline: id of the line break that opens a recall. teacher: of the question rows, where it was kept.
    """

    ids_BT: Tensor
    count_B: Tensor
    newline: int
    next_BT: Tensor | None = None
    next_count_B: Tensor | None = None
    questions_BRT: Tensor | None = None
    asks_BR: Tensor | None = None
    length_BR: Tensor | None = None
    teacher: KeptTeacher | None = None


@dataclass(frozen=True)
class Rows:
    """Token rows read on top of a passage's prefix. target_BRT: bool, True where the token itself must be predicted
    (from the token before it, so a row's first token never is). weight_BRT: float, of each target, 0 elsewhere (None: 1
    each); those below 1 are learnt from but are not part of the objective's figure."""

    ids_BRT: Tensor
    target_BRT: Tensor
    weight_BRT: Tensor | None = None

    @property
    def weights_BRT(self) -> Tensor:
        """Float weight of every token."""
        return self.target_BRT.float() if self.weight_BRT is None else self.weight_BRT


@dataclass
class ObjectiveConfig(Choice):
    """weight: its share of the loss over time."""

    weight: Schedule = field(default_factory=Schedule)

    def build(self) -> Objective:
        raise NotImplementedError


class Objective:
    """Base of all objectives.

    source: which steps it belongs to, ``"text"`` or ``"questions"``; ``None`` for one that judges the others' rows.
    taught: share of a step's passages that the teacher must have read as well. cache, top: where what it makes of
    question rows is kept (``""``: nowhere), and how many tokens of its vocabulary are.
    """

    source: str | None = None
    taught = 0.0
    cache = ""
    top = 0

    def __init__(self, config: Any) -> None:
        self.config = config

    def cut(self, passages: Passages, width: int, generator: torch.Generator) -> Rows | None:
        """Rows of ``width`` tokens behind each passage; None where the objective has none of its own."""
        return None

    def loss(self, ce_N: Tensor, kl_N: Tensor | None) -> Tensor:
        """Loss of each target token, from its cross-entropy and its divergence from the teacher (nats)."""
        return ce_N


def window_rows(passages: Passages, start_BR: Tensor, width: int, cue: int) -> Rows:
    """Rows "line break, then the passage from ``start``"; targets are what follows the first ``cue`` tokens."""
    step_T = torch.arange(width - 1, device=start_BR.device)
    index_BRT = start_BR[..., None] + step_T
    inside_BRT = index_BRT < passages.count_B[:, None, None]
    B, R, _ = index_BRT.shape
    index_BRT = index_BRT.clamp_max(passages.ids_BT.shape[1] - 1)
    tokens_BRT = passages.ids_BT[:, None].expand(-1, R, -1).gather(2, index_BRT)
    newline = tokens_BRT.new_full((B, R, 1), passages.newline)
    never = torch.zeros_like(newline, dtype=torch.bool)
    target_BRT = inside_BRT & (step_T >= cue)
    return Rows(torch.cat([newline, tokens_BRT], 2), torch.cat([never, target_BRT], 2))
