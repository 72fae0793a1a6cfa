"""What every objective is. There are three roles, and a step asks each only for what belongs to it.

``rows``: it puts rows of tokens behind a passage and is the cross-entropy of their targets.
``judge``: it has no rows and judges the targets of those that have, by the logits or by states inside the receiver.
``passage``: it needs no rows at all and looks at what is sent: latents, slots, the passage's own embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentwire.config import Choice
from latentwire.objectives.schedule import Schedule
from latentwire.receivers import Receiver
from latentwire.types import Latents


@dataclass(frozen=True)
class KeptTeacher:
    """What the teacher says of each token but the first of question rows, computed earlier (``training/teacher.py``).

    ids [B, R, T - 1, K]: its likeliest tokens. logs [B, R, T - 1, K + 1]: their log-probabilities, then that of all
    other tokens together. Leading sizes may be flattened to one.
    """

    ids: Tensor
    logs: Tensor

    def __len__(self) -> int:
        return len(self.ids)

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


class Said(NamedTuple):
    """What is said of N target tokens. student_NV: logits with the latents, float. log_N: their logarithms' norm
    (``logsumexp``). labels_N: int64, the tokens themselves. ce_N: cross-entropy, nats. teacher_NV: logits of the same
    receiver with the text, of the first tokens, as many as it has read; None where no objective asks for a teacher, or
    where ``kept`` stands for them, of as many tokens."""

    student_NV: Tensor
    log_N: Tensor
    labels_N: Tensor
    ce_N: Tensor
    teacher_NV: Tensor | None
    kept: KeptTeacher | None = None


@dataclass(frozen=True)
class Targets:
    """The targets of one objective's rows, [B, R, T] each. ce_BRT: cross-entropy, without gradient. weight_BRT: float
    weight of each token, 0 where it is no target. progress: share of training done, float []."""

    ce_BRT: Tensor
    weight_BRT: Tensor
    progress: Tensor

    @cached_property
    def place_BRT(self) -> Tensor:
        """Number of a token among its row's targets of full weight, 0 for the first; -1 for all other tokens."""
        whole_BRT = self.weight_BRT >= 1
        return (whole_BRT.cumsum(-1) - 1).masked_fill(~whole_BRT, -1)


@dataclass(frozen=True)
class Sent:
    """What is sent to one receiver in a step, in float32.

    latents: as encoded, masked ones behind the others. slots_BSE: the link's vectors, as the receiver's first layer
    meets them where it reads vectors. mask_BS: bool, which of them are there, in front of those that are not. ids_BT,
    count_B: tokens of the passage that they stand for.
    """

    latents: Latents
    slots_BSE: Tensor
    mask_BS: Tensor
    ids_BT: Tensor
    count_B: Tensor
    receiver: Receiver
    link: nn.Module

    @cached_property
    def token_mask_BT(self) -> Tensor:
        """Which tokens are there, bool."""
        return torch.arange(self.ids_BT.shape[1], device=self.ids_BT.device) < self.count_B[:, None]

    @cached_property
    def tokens_BTE(self) -> Tensor:
        """The passage's token embeddings, as the receiver's first layer gets them; zero for padding, no gradient."""
        with torch.no_grad():
            return self.receiver.embed(self.ids_BT).float() * self.token_mask_BT[..., None]

    @cached_property
    def token_rms(self) -> Tensor:
        """Root mean square of the passages' token embeddings, float []."""
        channels = self.count_B.sum() * self.tokens_BTE.shape[-1]
        return (self.tokens_BTE.square().sum() / channels.clamp_min(1)).sqrt()


@dataclass
class ObjectiveConfig(Choice):
    """weight: its share of the loss over time."""

    weight: Schedule = field(default_factory=Schedule)

    def build(self) -> Objective:
        raise NotImplementedError


class Objective:
    """Base of all objectives.

    role: ``rows``, ``judge`` or ``passage``. source: which steps it takes part in, ``"text"`` or ``"questions"``; None:
    both. labelled: the targets of its rows are right, so that their cross-entropy is learnt from; other rows are only
    judged. taught: share of a step's passages that the teacher must have read as well. cosine: it gives a figure
    ``cosine`` that a gated weight may wait for. least: passages that it needs at once. cache, top: where what the
    teacher makes of question rows is kept (``""``: nowhere), and how many tokens of its vocabulary are.
    """

    role = "rows"
    source: str | None = None
    labelled = True
    taught = 0.0
    cosine = False
    least = 1
    cache = ""
    top = 0

    def __init__(self, config: Any) -> None:
        self.config = config

    def concerns(self, receiver: Receiver, encoder: nn.Module) -> bool:
        """Whether it takes part for this receiver, beside what encodes."""
        return True

    def fit(self, link: nn.Module, width: int, receiver: Receiver, encoder: nn.Module) -> nn.Module | None:
        """Look at a link, whose slots are ``width`` wide, before training. UserError: they do not go together.

        What is returned is trained with the link and kept in checkpoints, but is no part of the wire.
        """
        return None

    # -- role `rows` --

    def cut(self, passages: Passages, width: int, generator: torch.Generator) -> Rows | None:
        """Rows of ``width`` tokens behind each passage; None where the objective has none of its own."""
        return None

    # -- role `judge` --

    def measure(self, said: Said) -> Tensor:
        """Loss of each token, nats [N] (of the teacher's tokens alone, if ``taught``); cross-entropy if not told."""
        return said.ce_N

    def layers(self, receiver: Receiver) -> tuple[int, ...]:
        """Numbers of the layers whose states are judged, by :meth:`inside` then, instead of logits; mostly none."""
        return ()

    def inside(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Loss of each token [B, R, T] from the states [B, R, T, E] behind each of ``layers``."""
        raise NotImplementedError

    def share(self, targets: Targets) -> Tensor:
        """Weight of each target [B, R, T], 0 where it is not judged; as the rows' own objective weighs it if not
        told. Which of them are 1 or more must not depend on ``ce_BRT``: a step done in parts counts them in advance."""
        return targets.weight_BRT

    # -- role `passage` --

    def passage(self, sent: Sent, own: nn.Module | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss [] of a step's passages, and figures to log. own: what :meth:`fit` returned."""
        raise NotImplementedError


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
