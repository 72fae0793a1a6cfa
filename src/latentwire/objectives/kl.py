"""Divergence from the same frozen receiver reading the text, on every target token of the other objectives' rows.

Decisive where labels are scarce, little on top of plenty of both labels and pretraining (see docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from latentwire.objectives.base import Objective, ObjectiveConfig


@ObjectiveConfig.register_subclass("kl")
@dataclass
class KLConfig(ObjectiveConfig):
    """KL(teacher || student) in nats; the teacher is the receiver with the text in place of the latents."""

    def build(self) -> KL:
        return KL(self)


class KL(Objective):
    source = None
    needs_teacher = True

    def loss(self, ce_N: Tensor, kl_N: Tensor | None) -> Tensor:
        assert kl_N is not None, "the step computes the teacher's logits when an objective needs them"
        return kl_N
