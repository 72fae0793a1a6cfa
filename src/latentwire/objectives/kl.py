"""Divergence from the same frozen receiver reading the text, on every target token of the other objectives' rows.

Decisive where labels are scarce, little on top of plenty of both labels and pretraining (see docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig


@ObjectiveConfig.register_subclass("kl")
@dataclass
class KLConfig(ObjectiveConfig):
    """KL(teacher || student) in nats; the teacher is the receiver with the text in place of the latents.

    taught: share of a step's passages that the teacher reads as well (its reading is about a quarter of a step).
    """

    taught: float = 1.0

    def build(self) -> KL:
        if not 0 < self.taught <= 1:
            raise UserError(f"kl.taught is a share above 0 and up to 1, not {self.taught}")
        return KL(self)


class KL(Objective):
    source = None

    def __init__(self, config: KLConfig) -> None:
        super().__init__(config)
        self.taught = config.taught

    def loss(self, ce_N: Tensor, kl_N: Tensor | None) -> Tensor:
        assert kl_N is not None, "the step computes the teacher's logits when an objective needs them"
        return kl_N
