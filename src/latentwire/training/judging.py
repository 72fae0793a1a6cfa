"""Reading rows on top of a prefix, and what is read off the states: by the logits, and inside the receiver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from latentwire.objectives.base import KeptTeacher, Objective, Said
from latentwire.receivers import Receiver
from latentwire.types import LayerBlock, Prefix


def watched(prefix: Prefix, layers: tuple[int, ...], kept: dict[int, Tensor]) -> Prefix:
    """The same prefix, and ``kept`` receives the states behind each of ``layers`` of whatever is read on top of it."""
    k_BHMK, v_BHMK = prefix.kv[0]

    def keeping(layer: int) -> LayerBlock:
        def act(h_BTE: Tensor, *_: Tensor) -> Tensor:
            kept[layer] = h_BTE
            return h_BTE

        return LayerBlock(layer, act, k_BHMK, v_BHMK, prefix.mask_BM)

    return replace(prefix, blocks=(*prefix.blocks, *map(keeping, layers))) if layers else prefix


def rows_of(h_BTE: Tensor, shape: torch.Size) -> Tensor:
    """What a layer gave of rows packed into one sequence: [B, R, T - 1, E] of those in front of a token to predict.
    shape: B or more, R, T."""
    return h_BTE.unflatten(1, shape[1:])[:, :, :-1]


def token_losses(
    receiver: Receiver,
    student_NE: Tensor,
    labels_N: Tensor,
    teacher: Tensor | KeptTeacher | None,
    measures: tuple[Callable[[Said], Tensor], ...] = (),
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Per token: cross-entropy, whether the most likely token is right, and what objectives ``measures`` ask of the
    logits. The teacher has states [N', E] for the first tokens, or was kept for them (None without one)."""
    s_NV = receiver.logits(student_NE)
    s_log = torch.logsumexp(s_NV, -1)
    ce_N = s_log - s_NV.gather(-1, labels_N[:, None])[:, 0]
    right_N = (s_NV.argmax(-1) == labels_N).float()
    t_NV, kept = None, teacher if isinstance(teacher, KeptTeacher) else None
    if isinstance(teacher, Tensor):
        with torch.no_grad():
            t_NV = receiver.logits(teacher)
    said = Said(s_NV, s_log, labels_N, ce_N, t_NV, kept)
    return ce_N, right_N, [measure(said) for measure in measures]


def judge_targets(
    receiver: Receiver,
    student_h: Tensor,
    ids_BRT: Tensor,
    weight_BRT: Tensor,
    teacher: Tensor | KeptTeacher | None,
    judges: dict[str, Objective],
    fixed: Callable[..., Any] | None = None,
    held: int = 0,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """:func:`token_losses` of every target, [B, R, T - 1] each (the teacher's of as many passages as it read).

    fixed: what judges every token of every row, targets or not: more arithmetic, but one shape for all steps. held:
    tokens whose logits are there at a time, see :func:`in_parts`.
    """
    labels, shape = ids_BRT[..., 1:], weight_BRT.shape
    student, measures = student_h[:, :, :-1], tuple(one.measure for one in judges.values())
    if fixed is not None:
        given = _each(teacher, lambda x: x.flatten(0, 2))
        judge = in_parts(fixed, held) if held else fixed
        ce, right, found = judge(receiver, student.flatten(0, 2), labels.flatten(), given, measures)
        found = [each.reshape(-1, *shape[1:]) for each in found]
        return ce.reshape(shape), right.reshape(shape), dict(zip(judges, found, strict=True))
    # targets may be few, and choosing them costs nothing where nothing waits
    picked = weight_BRT > 0
    some = _each(teacher, lambda x: x[picked[: len(x)]])
    judge = in_parts(token_losses, held) if held else token_losses
    ce, right, found = judge(receiver, student[picked], labels[picked], some, measures)
    empty = torch.zeros(shape, dtype=ce.dtype, device=ce.device)
    judged = {}
    for (key, one), each in zip(judges.items(), found, strict=True):
        read = shape[0] if teacher is None or not one.taught else len(teacher)
        judged[key] = empty[:read].masked_scatter(picked[:read], each)
    return empty.masked_scatter(picked, ce), empty.masked_scatter(picked, right), judged


def in_parts(judge: Callable[..., Any], held: int) -> Callable[..., Any]:
    """The same as ``judge`` (:func:`token_losses`), of ``held`` tokens at a time. Logits are not kept for the backward
    pass but made again there: of a large vocabulary they are more than all states of a step."""

    def judged(
        receiver: Receiver,
        student_NE: Tensor,
        labels_N: Tensor,
        teacher: Tensor | KeptTeacher | None,
        measures: tuple[Callable[[Said], Tensor], ...] = (),
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        parts = []
        for start in range(0, max(len(labels_N), 1), held):
            part = slice(start, start + held)
            # the teacher has read the first tokens alone: of the last parts it has none, which is not no teacher
            given = receiver, student_NE[part], labels_N[part], _each(teacher, lambda x, part=part: x[part]), measures
            parts.append(checkpoint(judge, *given, use_reentrant=False, preserve_rng_state=False))
        ce, right, found = zip(*parts, strict=True)
        return torch.cat(ce), torch.cat(right), [torch.cat(each) for each in zip(*found, strict=True)]

    return judged


def _each(teacher: Tensor | KeptTeacher | None, change: Callable[[Tensor], Tensor]) -> Tensor | KeptTeacher | None:
    return teacher.each(change) if isinstance(teacher, KeptTeacher) else None if teacher is None else change(teacher)


@torch.no_grad()
def first_answers(receiver: Receiver, h_BRTE: Tensor, ids_BRT: Tensor, target_BRT: Tensor) -> tuple[Tensor, Tensor]:
    """Float logits [N, V] of the first target of every row, N = B * R, and the right tokens [N]."""
    first_BR1 = target_BRT.float().argmax(-1, keepdim=True)
    before_BR = (first_BR1[..., 0] - 1).clamp_min(0)
    h_NE = h_BRTE.gather(2, before_BR[..., None, None].expand(-1, -1, 1, h_BRTE.shape[-1])).flatten(0, 2)
    return receiver.logits(h_NE), ids_BRT.gather(2, first_BR1).flatten()


@torch.no_grad()
def first_tokens(receiver: Receiver, h_BRTE: Tensor, ids_BRT: Tensor, target_BRT: Tensor) -> dict[str, Tensor]:
    """The predicted first answer tokens of a step: ``distinct``, the share of the most frequent one (near 1 is a
    collapse); ``token``, its id; ``variety``, kinds of predicted tokens per kind of right ones."""
    logits_NV, right_N = first_answers(receiver, h_BRTE, ids_BRT, target_BRT)
    predicted_N = logits_NV.argmax(-1)
    seen_V = torch.zeros(receiver.geometry.vocab, device=predicted_N.device)
    ones_N = torch.ones_like(predicted_N, dtype=seen_V.dtype)
    kinds = (seen_V.scatter(0, right_N, ones_N) > 0).sum()
    seen_V = seen_V.scatter_add(0, predicted_N, ones_N)
    top = seen_V.max(0)
    return {
        "distinct": top.values / len(predicted_N),
        "token": top.indices.float(),
        "variety": (seen_V > 0).sum() / kinds,
    }
