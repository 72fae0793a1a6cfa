"""One training step: encode the passages once, put all their rows behind every receiver's prefix, judge the targets.

Rows of a passage are packed into one sequence behind its prefix and cannot see each other, so neither the prefix nor
the teacher's reading of the passage is ever copied per row.

A step has two halves. ``cut`` draws the rows; ``losses`` is all the rest, and with ``fixed`` nothing in it waits for
the device or depends on what is drawn, so that it can be recorded once and replayed (see ``graphs.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.objectives import KeptTeacher, Objective, Rows
from latentwire.receivers import Receiver
from latentwire.receivers.attention import own_causal
from latentwire.training.batches import Batch
from latentwire.types import MODES, Latents, Prefix
from latentwire.wire import Wire


@dataclass(frozen=True)
class Work:
    """What a step computes on. source: the encoder's tensors. read: per receiver ``context`` [B, T] with ``count`` [B],
    ``rows`` [B, R, T] and ``weight`` [B, R, T], the float weight of each target, 0 where there is none; ``ids`` and
    ``logs`` where the teacher was kept (see :class:`KeptTeacher`).

    pieces: per objective its name and how many of the R rows are its own. weights: of all objectives at this moment.
    """

    source: dict[str, Tensor]
    read: dict[str, dict[str, Tensor]]
    pieces: tuple[tuple[str, int], ...]
    weights: tuple[tuple[str, float], ...]


class Step(nn.Module):
    """``forward(batch, source, ratio, slots, mode, progress, generator)`` gives the loss and its parts."""

    def __init__(self, wire: Wire, objectives: dict[str, Objective], width: int, least: int, train: list[str]) -> None:
        """width: tokens of a row. least: a receiver gets at least so many slots, masked ones behind the others, so that
        most draws have one shape.
        train: the links that take part."""
        super().__init__()
        self.wire, self.objectives, self.width, self.least, self.train_links = wire, objectives, width, least, train
        self.fast_losses: Any = token_losses
        self.fixed = False
        """Judge every token of every row, targets or not: more arithmetic, but one shape for all steps."""

    def forward(
        self,
        batch: Batch,
        source: str,
        ratio: int,
        slots: int | None,
        mode: str,
        progress: float,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """source: ``"text"`` or ``"questions"``, which objectives take part. progress: share of training done."""
        return self.losses(self.cut(batch, source, progress, generator), ratio, slots, mode)

    def cut(self, batch: Batch, source: str, progress: float, generator: torch.Generator) -> Work:
        """Draw the rows of a step."""
        read: dict[str, dict[str, Tensor]] = {}
        pieces: list[tuple[str, int]] = []
        for name in self.train_links:
            passages = batch.read[name]
            found: list[tuple[str, Rows]] = []
            for key, objective in self.objectives.items():
                rows = objective.cut(passages, self.width, generator) if objective.source == source else None
                if rows is not None:
                    found.append((key, rows))
            pieces = [(key, rows.ids_BRT.shape[1]) for key, rows in found]
            read[name] = {
                "context": passages.ids_BT,
                "count": passages.count_B,
                "rows": torch.cat([rows.ids_BRT for _, rows in found], 1),
                "weight": torch.cat([rows.weights_BRT for _, rows in found], 1),
            }
            if (kept := passages.teacher) and all(rows.ids_BRT is passages.questions_BRT for _, rows in found):
                read[name] |= {key: torch.cat([x] * len(found), 1) for key, x in vars(kept).items()}
        weights = tuple((key, objective.config.weight.at(progress)) for key, objective in self.objectives.items())
        return Work(batch.source, read, tuple(pieces), weights)

    def losses(
        self, work: Work, ratio: int, slots: int | None = None, mode: str = MODES[0]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over all receivers, and its parts. slots: for each latent, the links' first number if None."""
        latents = widen(self.wire.encoder(work.source, ratio), -(-self.least // (slots or 1)))
        total = torch.zeros((), device=latents.z_BMD.device)
        metrics: dict[str, Tensor] = {}
        for name in self.train_links:
            loss, parts = self.one_receiver(name, work, latents, slots, mode)
            total = total + loss
            if (own := self.wire.links[name].adapter.penalty()) is not None:  # ty: ignore[not-callable]
                total = total + own
            metrics |= {f"{name}/{key}": value for key, value in parts.items()}
        return total / len(self.train_links), metrics

    def one_receiver(
        self, name: str, work: Work, latents: Latents, slots: int | None, mode: str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one receiver: the weighted objectives over its rows."""
        receiver, read, weights = self.wire.get_receiver(name), work.read[name], dict(work.weights)
        judges = [(key, judge) for key, judge in self.objectives.items() if judge.source is None and weights[key]]
        ids_BRT = read["rows"]
        # the passages of a batch stand in random order: the first ones are as good a part as any
        few = math.ceil(max([judge.taught for _, judge in judges], default=0.0) * len(ids_BRT))
        teacher: Tensor | KeptTeacher | None = None
        if few and "logs" in read:
            teacher = KeptTeacher(read["ids"][:few], read["logs"][:few])
        elif few:
            teacher = self.teacher(receiver, read["context"][:few], read["count"][:few], ids_BRT[:few])[:, :, :-1]
        student_h = row_states(receiver, self.wire.prefix(name, latents, mode, slots), ids_BRT)
        # targets are predicted by the token before them; a row's first token is never a target
        weight_BRT = read["weight"][..., 1:]
        ce_BRT, kl_BRT, right_BRT = self.judge(receiver, student_h, ids_BRT, weight_BRT, teacher, few)
        loss = torch.zeros((), device=ids_BRT.device)
        parts: dict[str, Tensor] = {}
        start = 0
        for key, count in work.pieces:
            rows = slice(start, start + count)
            start += count
            objective, share = self.objectives[key], weight_BRT[:, rows]
            ce, kl = ce_BRT[:, rows], None if kl_BRT is None else kl_BRT[:, rows]
            # the figure is of targets with full weight, so that it means the same whatever else is learnt from
            whole = (share >= 1).float()
            targets = whole.sum().clamp_min(1)
            each = objective.loss(ce, kl)
            loss = loss + weights[key] * (each * share).sum() / targets
            parts[key] = ((each * whole).sum() / targets).detach()
            parts[f"{key}/right"] = ((right_BRT[:, rows] * whole).sum() / targets).detach()
            for label, judge in judges:
                extra, some = judge.loss(ce[:few], kl), whole[:few].sum().clamp_min(1)
                loss = loss + weights[key] * weights[label] * (extra * share[:few]).sum() / some
                parts[f"{key}/{label}"] = ((extra * whole[:few]).sum() / some).detach()
        if any(self.objectives[key].source == "questions" for key, _ in work.pieces):
            parts["distinct"] = first_tokens(receiver, student_h, read["weight"] >= 1)
        return loss, parts

    def judge(
        self,
        receiver: Receiver,
        student_h: Tensor,
        ids_BRT: Tensor,
        weight_BRT: Tensor,
        teacher: Tensor | KeptTeacher | None,
        few: int,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """:func:`token_losses` of every target, [B, R, T - 1] each (the teacher's of the ``few`` passages it read)."""
        labels, shape = ids_BRT[..., 1:], weight_BRT.shape
        student, taught = student_h[:, :, :-1], (few, *shape[1:])
        if self.fixed:
            given = _each(teacher, lambda x: x.flatten(0, 2))
            ce, kl, right = self.fast_losses(receiver, student.flatten(0, 2), labels.flatten(), given)
            return ce.reshape(shape), None if kl is None else kl.reshape(taught), right.reshape(shape)
        # targets may be few, and choosing them costs nothing where nothing waits
        picked = weight_BRT > 0
        some = _each(teacher, lambda x: x[picked[:few]])
        ce, kl, right = token_losses(receiver, student[picked], labels[picked], some)
        empty = torch.zeros(shape, dtype=ce.dtype, device=ce.device)
        if kl is not None:
            kl = empty[:few].masked_scatter(picked[:few], kl)
        return empty.masked_scatter(picked, ce), kl, empty.masked_scatter(picked, right)

    @torch.no_grad()
    def teacher(self, receiver: Receiver, ids_BT: Tensor, count_B: Tensor, ids_BRT: Tensor) -> Tensor:
        """The same frozen receiver with the passage's text in place of the latents: states [B, R, T, E]."""
        mask_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < count_B[:, None]
        prefix = receiver.read(ids_BT, mask_BT, receiver.head_for(ids_BT.shape[0]))
        return row_states(receiver, prefix, ids_BRT)


def row_states(receiver: Receiver, prefix: Prefix, ids_BRT: Tensor) -> Tensor:
    """States [B, R, T, E] of rows that share their passage's prefix and do not see one another."""
    B, R, T = ids_BRT.shape
    device = ids_BRT.device
    # padding inside a row needs no mask: it stands behind every target, where causality hides it
    causal = own_causal(torch.ones(1, T, dtype=torch.bool, device=device))[0]
    own = torch.block_diag(*[causal.float()] * R).bool()[None]
    positions = prefix.next_B[:, None, None] + torch.arange(T, device=device).expand(1, R, T)
    h = receiver.states(ids_BRT.reshape(B, R * T), positions_BT=positions.reshape(B, R * T), own_BTT=own, prefix=prefix)
    return h.reshape(B, R, T, -1)


def token_losses(
    receiver: Receiver, student_NE: Tensor, labels_N: Tensor, teacher_NE: Tensor | KeptTeacher | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Per token: cross-entropy, KL from the teacher, and whether the most likely token is right.

    KL is given for the first tokens, as many as the teacher has states for, or was kept for (None without one).
    """
    s_NV = receiver.logits(student_NE)
    s_log = torch.logsumexp(s_NV, -1)
    ce_N = s_log - s_NV.gather(-1, labels_N[:, None])[:, 0]
    right_N = (s_NV.argmax(-1) == labels_N).float()
    if teacher_NE is None:
        return ce_N, None, right_N
    if isinstance(teacher_NE, KeptTeacher):
        few = len(teacher_NE.ids)
        return ce_N, teacher_NE.divergence(s_NV[:few], s_log[:few]), right_N
    with torch.no_grad():
        t_NV = receiver.logits(teacher_NE)
        t_log = torch.logsumexp(t_NV, -1)
        p_NV = (t_NV - t_log[:, None]).exp()
        own_N = (p_NV * t_NV).sum(-1) - t_log
    few = len(teacher_NE)
    return ce_N, own_N - (p_NV * s_NV[:few]).sum(-1) + s_log[:few], right_N


@torch.no_grad()
def first_tokens(receiver: Receiver, h_BRTE: Tensor, target_BRT: Tensor) -> Tensor:
    """Share of the most frequent first answer token among the predictions: near 1 is a collapse."""
    before_BR = target_BRT.float().argmax(-1) - 1
    h_NE = h_BRTE.gather(2, before_BR.clamp_min(0)[..., None, None].expand(-1, -1, 1, h_BRTE.shape[-1])).flatten(0, 2)
    predicted = receiver.logits(h_NE).argmax(-1)
    seen_V = torch.zeros(receiver.geometry.vocab, device=predicted.device)
    return seen_V.scatter_add(0, predicted, torch.ones_like(predicted, dtype=seen_V.dtype)).max() / len(predicted)


def widen(latents: Latents, count: int) -> Latents:
    """Latents padded to ``count`` at least, masked."""
    more = count - latents.mask_BM.shape[1]
    if more <= 0:
        return latents
    return replace(latents, z_BMD=F.pad(latents.z_BMD, (0, 0, 0, more)), mask_BM=F.pad(latents.mask_BM, (0, more)))


def _each(teacher: Tensor | KeptTeacher | None, change: Callable[[Tensor], Tensor]) -> Tensor | KeptTeacher | None:
    return teacher.each(change) if isinstance(teacher, KeptTeacher) else None if teacher is None else change(teacher)
