"""What one training step computes on: plain tensors, and names that say what is in them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from latentwire.objectives import Objective
from latentwire.types import Latents


@dataclass(frozen=True)
class Work:
    """What a step computes on. source: the encoder's tensors. read: per receiver ``context`` [B, T] with ``count`` [B],
    ``rows`` [B, R, T] and ``weight`` [B, R, T], the float weight of each target, 0 where there is none; ``ids`` and
    ``logs`` where the teacher was kept (see :class:`~latentwire.objectives.KeptTeacher`). Where a step
    mixes (see ``mixing.py``), ``instead`` or ``beside`` [B] and ``own`` [B, R, T]; in a part of a step (see
    ``pieces.py``), ``scale`` [pieces, 1 + judges], what its means over targets count for: those of the rows' own
    objective, then those of each active judge.

    pieces: per objective its name and how many of the R rows are its own. active: objectives that this step asks
    anything of; weight_N: the weight of each at this moment. progress: share of training done, float [].
    """

    source: dict[str, Tensor]
    read: dict[str, dict[str, Tensor]]
    pieces: tuple[tuple[str, int], ...]
    active: tuple[str, ...]
    weight_N: Tensor
    progress: Tensor

    def of(self, name: str, device: torch.device) -> dict[str, Tensor]:
        """What receiver ``name`` reads, on its device."""
        return {key: value.to(device, non_blocking=True) for key, value in self.read[name].items()}

    @property
    def passages(self) -> int:
        """How many passages there are."""
        return len(next(iter(self.source.values())))

    def labelled(self, objectives: dict[str, Objective], *each: Tensor) -> list[Tensor]:
        """Of tensors [B, R, ...] about the rows, what is about rows whose targets are right."""
        sizes = [count for _, count in self.pieces]
        if all(objectives[key].labelled for key, _ in self.pieces):
            return list(each)
        parts = [zip(self.pieces, x.split(sizes, 1), strict=True) for x in each]
        return [torch.cat([x for (key, _), x in part if objectives[key].labelled], 1) for part in parts]


def widen(latents: Latents, count: int) -> Latents:
    """Latents padded to ``count`` at least, masked."""
    more = count - latents.mask_BM.shape[1]
    if more <= 0:
        return latents
    return replace(latents, z_BMD=F.pad(latents.z_BMD, (0, 0, 0, more)), mask_BM=F.pad(latents.mask_BM, (0, more)))
