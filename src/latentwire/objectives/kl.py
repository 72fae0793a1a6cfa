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

    taught: share of a step's passages that the teacher reads as well (its reading is about a quarter of a step). cache:
    a folder in which what the teacher makes of question rows is kept, its ``top`` likeliest tokens and the rest as one
    more; such rows need no teacher then. See ``training/teacher.py`` for how near that is to the live one.
    """

    taught: float = 1.0
    cache: str = ""
    top: int = 32

    def build(self) -> KL:
        if not 0 < self.taught <= 1:
            raise UserError(f"kl.taught is a share above 0 and up to 1, not {self.taught}")
        if self.top < 1:
            raise UserError(f"kl.top is a number of tokens from 1, not {self.top}")
        return KL(self)


class KL(Objective):
    source = None

    def __init__(self, config: KLConfig) -> None:
        super().__init__(config)
        self.taught, self.cache, self.top = config.taught, config.cache, config.top

    def loss(self, ce_N: Tensor, kl_N: Tensor | None) -> Tensor:
        assert kl_N is not None, "the step computes the teacher's logits when an objective needs them"
        return kl_N
