"""A step done in parts, one after another: the same step for less memory.

A step's losses are means over target tokens, and parts have more or fewer of them, so the mean of the parts' losses is
not the step's. Each part is told what its means count for (``scale``), and then it is, for every objective with rows
and every judge by itself. Losses of passages (objectives of what is sent, penalties) are means within each part, and
count for the part's share of the passages. An objective that compares the passages of a batch with one another sees
only those of its part.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from latentwire.objectives.base import Targets
from latentwire.training.step import Step
from latentwire.training.work import Work


def most_parts(work: Work, step: Step) -> int:
    """Into how many parts the work can be done: each has the passages that an objective needs at once."""
    return max(work.passages // max([step.objectives[key].least for key in work.active], default=1), 1)


def split(work: Work, parts: int, step: Step) -> list[tuple[Work, float]]:
    """The step's work as ``parts`` works, and the share of its passages that each has.

    Every ``parts``-th passage goes to the same part, so the first ones, which the teacher reads, are spread evenly.
    Where their number cannot be divided so, some parts have it read one more.
    """
    total = work.passages
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
        counts = torch.stack([_targets(one, name, step) for one in works])  # [parts, pieces, 1 + judges]
        of_all = counts.sum(0).clamp_min(1)
        for one, count, share in zip(works, counts, shares, strict=True):
            one.read[name]["scale"] = count.clamp_min(1) / of_all / share
    return list(zip(works, shares, strict=True))


def _cut(x: Tensor, parts: int) -> list[Tensor]:
    return [x[part::parts] for part in range(parts)]


def _targets(work: Work, name: str, step: Step) -> Tensor:
    """Full targets of each objective in all rows, and those of each judge in the rows that it judges: [pieces, 1 +
    judges]."""
    weight_BRT = work.read[name]["weight"][..., 1:]
    few, start, found = step.few(work), 0, []
    for _, count in work.pieces:
        own_BRT = weight_BRT[:, start : start + count]
        start += count
        # which targets a judge takes does not depend on losses, which nobody knows yet
        of = Targets(torch.zeros_like(own_BRT), own_BRT, work.progress)
        judged = [judge.share(of)[: few if judge.taught else None] for judge in step.judges(work).values()]
        found.append(torch.stack([(share_BRT >= 1).float().sum() for share_BRT in (own_BRT, *judged)]))
    return torch.stack(found)
