"""A bonus for entropy in the first answer token: what holds a collapse to one answer back at the beginning.

(As in policy learning, Mnih et al. 2016; the first implementation collapsed to "the".) The figure is in nats, negative:
minus the entropy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from latentwire.objectives.base import Objective, ObjectiveConfig, Said, Targets
from latentwire.objectives.schedule import Schedule


@ObjectiveConfig.register_subclass("first-entropy")
@dataclass
class FirstEntropyConfig(ObjectiveConfig):
    """weight: small, and best gone before training ends: a sure answer is what is wanted in the end."""

    weight: Schedule = field(default_factory=lambda: Schedule(0.01))

    def build(self) -> FirstEntropy:
        return FirstEntropy(self)


class FirstEntropy(Objective):
    role = "judge"
    source = "questions"

    def measure(self, said: Said) -> Tensor:
        p_NV = (said.student_NV - said.log_N[:, None]).exp()
        return (p_NV * said.student_NV).sum(-1) - said.log_N

    def share(self, targets: Targets) -> Tensor:
        return (targets.place_BRT == 0).float()
