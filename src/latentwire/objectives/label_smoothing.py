"""Label smoothing (Szegedy et al. 2016): part of each target is spread over the whole vocabulary.

As a judge it is what smoothing adds to plain cross-entropy: with a weight of 0.1 the sum is cross-entropy with 0.9 of
the target on the token and 0.1 on all tokens alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Said
from latentwire.objectives.schedule import Schedule


@ObjectiveConfig.register_subclass("label-smoothing")
@dataclass
class LabelSmoothingConfig(ObjectiveConfig):
    """weight: the part of a target that is spread, from 0 to below 1."""

    weight: Schedule = field(default_factory=lambda: Schedule(0.1))

    def build(self) -> LabelSmoothing:
        if not all(0 <= part < 1 for part in (self.weight.value, self.weight.start_value)):
            raise UserError(
                f"the weight of label-smoothing is the part of a target that is spread, from 0 to below 1, "
                f"not {self.weight.value}; give it as weight: {{value: 0.1}}"
            )
        return LabelSmoothing(self)


class LabelSmoothing(Objective):
    role = "judge"

    def measure(self, said: Said) -> Tensor:
        """Cross-entropy against all tokens alike, less that against the token; negative where a token is unlikely."""
        return said.log_N - said.student_NV.mean(-1) - said.ce_N
