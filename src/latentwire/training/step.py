"""One training step: encode the passages once, put all their rows behind every receiver's prefix, judge the targets.

Rows of a passage are packed into one sequence behind its prefix and cannot see each other, so neither the prefix nor
the teacher's reading of the passage is ever copied per row.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.objectives import Objective, Rows
from latentwire.receivers import Receiver
from latentwire.receivers.attention import own_causal
from latentwire.training.batches import Batch
from latentwire.types import Latents, Prefix
from latentwire.wire import Wire


class Step(nn.Module):
    """``forward(batch, source, ratio, progress, generator)`` gives the loss and its parts."""

    def __init__(self, wire: Wire, objectives: dict[str, Objective], width: int, slots: int, train: list[str]) -> None:
        """width: tokens of a row. slots: latents are padded to this many, so that every ratio has one shape.
        train: the links that take part."""
        super().__init__()
        self.wire, self.objectives, self.width, self.slots, self.train_links = wire, objectives, width, slots, train
        self.fast_losses: Any = token_losses

    def forward(
        self, batch: Batch, source: str, ratio: int, progress: float, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """source: ``"text"`` or ``"questions"``, which objectives take part. progress: share of training done."""
        latents = widen(self.wire.encoder(batch.source, ratio), self.slots)
        total = torch.zeros((), device=latents.z_BMD.device)
        metrics: dict[str, Tensor] = {}
        for name in self.train_links:
            loss, parts = self.one_receiver(name, batch, latents, source, progress, generator)
            total = total + loss
            metrics |= {f"{name}/{key}": value for key, value in parts.items()}
        return total / len(self.train_links), metrics

    def one_receiver(
        self, name: str, batch: Batch, latents: Latents, source: str, progress: float, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one receiver: the weighted objectives over its rows."""
        receiver, passages = self.wire.get_receiver(name), batch.read[name]
        pieces: list[tuple[str, Objective, Rows]] = []
        judges: list[tuple[str, Objective, float]] = []
        for key, objective in self.objectives.items():
            if objective.source is None:
                judges.append((key, objective, objective.config.weight.at(progress)))
            elif objective.source == source:
                rows = objective.cut(passages, self.width, generator)
                if rows is not None:
                    pieces.append((key, objective, rows))
        ids_BRT = torch.cat([rows.ids_BRT for _, _, rows in pieces], 1)
        target_BRT = torch.cat([rows.target_BRT for _, _, rows in pieces], 1)
        weight_BRT = torch.cat([rows.weights_BRT for _, _, rows in pieces], 1)
        # the passages of a batch stand in random order: the first ones are as good a part as any
        taught = max([judge.taught for _, judge, weight in judges if weight], default=0.0)
        few = math.ceil(taught * len(ids_BRT))
        teacher_h = (
            self.teacher(receiver, passages.ids_BT[:few], passages.count_B[:few], ids_BRT[:few]) if few else None
        )
        prefix = self.wire.prefix(name, latents)
        student_h = row_states(receiver, prefix, ids_BRT)
        # targets are predicted by the token before them; a row's first token is never a target
        picked = target_BRT[..., 1:]
        labels = ids_BRT[..., 1:]
        # for text nearly all tokens are targets and the fixed shape compiles; answers are few and worth selecting
        if source == "text":
            flat = (student_h[:, :, :-1].flatten(0, 2), labels.flatten(), _flat(teacher_h))
            ce, kl, right = self.fast_losses(receiver, *flat)
            weight = weight_BRT[..., 1:].flatten()
        else:
            chosen = (
                student_h[:, :, :-1][picked],
                labels[picked],
                None if teacher_h is None else teacher_h[:, :, :-1][picked[:few]],
            )
            ce, kl, right = token_losses(receiver, *chosen)
            weight = weight_BRT[..., 1:][picked]
        which = torch.cat(
            [torch.full(r.ids_BRT.shape[:2], i, device=ce.device) for i, (_, _, r) in enumerate(pieces)], 1
        )
        which_N = which[..., None].expand(picked.shape)
        which_N = which_N.flatten() if source == "text" else which_N[picked]
        loss = torch.zeros((), device=ce.device)
        parts: dict[str, Tensor] = {}
        for i, (key, objective, _) in enumerate(pieces):
            share = weight * (which_N == i)
            # the figure is of targets with full weight, so that it means the same whatever else is learnt from
            whole = (share >= 1).float()
            count = whole.sum().clamp_min(1)
            per = objective.config.weight.at(progress)
            each = objective.loss(ce, kl)
            loss = loss + per * (each * share).sum() / count
            parts[key] = ((each * whole).sum() / count).detach()
            parts[f"{key}/right"] = ((right * whole).sum() / count).detach()
            for label, judge, judged in judges:
                if judged:
                    seen = slice(len(ce) if kl is None else len(kl))
                    extra, some = judge.loss(ce[seen], kl), whole[seen].sum().clamp_min(1)
                    loss = loss + per * judged * (extra * share[seen]).sum() / some
                    parts[f"{key}/{label}"] = ((extra * whole[seen]).sum() / some).detach()
        if source == "questions":
            parts["distinct"] = first_tokens(receiver, student_h, weight_BRT >= 1)
        return loss, parts

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
    receiver: Receiver, student_NE: Tensor, labels_N: Tensor, teacher_NE: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Per token: cross-entropy, KL from the teacher, and whether the most likely token is right.

    KL is given for the first tokens, as many as the teacher has states for (None without one).
    """
    s_NV = receiver.logits(student_NE)
    s_log = torch.logsumexp(s_NV, -1)
    ce_N = s_log - s_NV.gather(-1, labels_N[:, None])[:, 0]
    right_N = (s_NV.argmax(-1) == labels_N).float()
    if teacher_NE is None:
        return ce_N, None, right_N
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
    return torch.bincount(predicted, minlength=receiver.geometry.vocab).max() / len(predicted)


def widen(latents: Latents, slots: int) -> Latents:
    """Latents padded to a fixed number, masked."""
    more = slots - latents.mask_BM.shape[1]
    if more <= 0:
        return latents
    return replace(latents, z_BMD=F.pad(latents.z_BMD, (0, 0, 0, more)), mask_BM=F.pad(latents.mask_BM, (0, more)))


def _flat(h: Tensor | None) -> Tensor | None:
    return None if h is None else h[:, :, :-1].flatten(0, 2)
