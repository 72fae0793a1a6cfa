"""A step done in parts, one after another: the same step for less memory.

A step's losses are means over target tokens, and parts have more or fewer of them, so the mean of the parts' losses is
not the step's. Each part is told what its means count for (``scale``), and then it is, for every objective by itself.
What is a mean over passages (penalties) needs nothing. An objective that compares the passages of a batch with one
another sees only those of its part.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from latentwire.training.step import Step, Work


def passages_of(work: Work) -> int:
    """Passages of a step."""
    return len(next(iter(work.read.values()))["rows"])


def split(work: Work, parts: int, step: Step) -> list[tuple[Work, float]]:
    """The step's work as ``parts`` works, and the share of its passages that each has.

    Every ``parts``-th passage goes to the same part, so the first ones, which the teacher reads, are spread evenly.
    Where their number cannot be divided so, some parts have it read one more.
    """
    total = passages_of(work)
    if parts == 1:
        return [(work, 1.0)]
    read = {name: {key: _cut(value, parts) for key, value in tensors.items()} for name, tensors in work.read.items()}
    source = {key: _cut(value, parts) for key, value in work.source.items()}
    shares = [len(range(part, total, parts)) / total for part in range(parts)]
    works = []
    for part in range(parts):
        own = {name: {key: value[part] for key, value in tensors.items()} for name, tensors in read.items()}
        works.append(replace(work, source={key: value[part] for key, value in source.items()}, read=own))
    for name in work.read:
        counts = torch.stack([_targets(one, name, step) for one in works])  # [parts, pieces, 2]
        of_all = counts.sum(0).clamp_min(1)
        for one, count, share in zip(works, counts, shares, strict=True):
            one.read[name]["scale"] = count.clamp_min(1) / of_all / share
    return list(zip(works, shares, strict=True))


def _cut(x: Tensor, parts: int) -> list[Tensor]:
    return [x[part::parts] for part in range(parts)]


def _targets(work: Work, name: str, step: Step) -> Tensor:
    """Full targets of each objective in all rows, and in those of the passages that the teacher reads, [pieces, 2]."""
    weight_BRT = work.read[name]["weight"][..., 1:]
    few, start, found = step.few(len(weight_BRT), dict(work.weights)), 0, []
    for _, count in work.pieces:
        whole = (weight_BRT[:, start : start + count] >= 1).float()
        start += count
        found.append(torch.stack([whole.sum(), whole[:few].sum()]))
    return torch.stack(found)
