"""States inside the receiver, held to those of the same receiver reading the text (FitNets, Romero et al. 2015).

They are compared where targets are predicted, behind chosen layers. Student and teacher are one frozen model, so no map
between them has to be learnt, and the text's states are within reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig
from latentwire.receivers import Receiver

MEASURES = ("mse", "cosine")


@ObjectiveConfig.register_subclass("hidden-states")
@dataclass
class HiddenStatesConfig(ObjectiveConfig):
    """at: shares of the receiver's depth; states are compared behind the layer that completes each. measure: ``mse``,
    the squared distance in units of the teacher's squared length, or ``cosine``, 1 less the cosine. taught: share of
    a step's passages that the teacher reads as well."""

    at: tuple[float, ...] = (0.5, 1.0)
    measure: str = "mse"
    taught: float = 1.0

    def build(self) -> HiddenStates:
        if not self.at or not all(0 < share <= 1 for share in self.at):
            raise UserError(f"hidden-states.at names shares of the depth, each above 0 and at most 1, not {self.at}")
        if self.measure not in MEASURES:
            raise UserError(f"hidden-states.measure is {' or '.join(MEASURES)}, not {self.measure!r}")
        if not 0 < self.taught <= 1:
            raise UserError(
                f"hidden-states.taught is a share above 0 and up to 1, not {self.taught}: hidden-states needs a teacher"
            )
        return HiddenStates(self)


class HiddenStates(Objective):
    role = "judge"
    config: HiddenStatesConfig

    def __init__(self, config: HiddenStatesConfig) -> None:
        super().__init__(config)
        self.taught = config.taught

    def layers(self, receiver: Receiver) -> tuple[int, ...]:
        depth = receiver.geometry.layers
        # shares that end in the same layer are one
        return tuple(sorted({max(round(share * depth), 1) - 1 for share in self.config.at}))

    def inside(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        losses = []
        for s_BRTE, t_BRTE in zip(student, teacher, strict=True):
            s_BRTE, t_BRTE = s_BRTE.float(), t_BRTE.float()
            if self.config.measure == "cosine":
                losses.append(1 - F.cosine_similarity(s_BRTE, t_BRTE, -1))
            else:
                length_BRT = t_BRTE.square().sum(-1).clamp_min(1e-6)
                losses.append((s_BRTE - t_BRTE).square().sum(-1) / length_BRT)
        return torch.stack(losses).mean(0)
