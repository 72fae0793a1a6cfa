"""Divergence from the same frozen receiver reading the text, on target tokens of the other objectives' rows.

Decisive where labels are scarce, little on top of plenty of both labels and pretraining (see docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Said, Targets


@ObjectiveConfig.register_subclass("kl")
@dataclass
class KLConfig(ObjectiveConfig):
    """KL(teacher || student) in nats; the teacher is the receiver with the text in place of the latents.

    taught: share of a step's passages that the teacher reads as well (its reading is about a quarter of a step).
    tokens: of each row's targets the first so many (0: all of them, those of less than full weight too).
    temperature: both distributions are softened by it, and the divergence is scaled by its square, which keeps the size
    of gradients (Hinton et al. 2015). cache: a folder in which what the teacher makes of question rows is kept, its
    ``top`` likeliest tokens and the rest as one more; such rows need no teacher then. See ``training/teacher.py`` for
    how near that is to the live one.
    """

    taught: float = 1.0
    tokens: int = 0
    temperature: float = 1.0
    cache: str = ""
    top: int = 32

    def build(self) -> KL:
        if not 0 < self.taught <= 1:
            raise UserError(f"kl.taught is a share above 0 and up to 1, not {self.taught}: kl needs a teacher")
        if self.tokens < 0:
            raise UserError(f"kl.tokens is a number of tokens, or 0 for all, not {self.tokens}")
        if self.temperature <= 0:
            raise UserError(f"kl.temperature must be above 0, not {self.temperature}")
        if self.top < 1:
            raise UserError(f"kl.top is a number of tokens from 1, not {self.top}")
        if self.cache and self.temperature != 1:
            # how the other tokens would share what a temperature gives them is not kept
            raise UserError(
                f"kl.cache holds the teacher at temperature 1, and kl.temperature is {self.temperature}; leave one out"
            )
        return KL(self)


class KL(Objective):
    role = "judge"
    config: KLConfig

    def __init__(self, config: KLConfig) -> None:
        super().__init__(config)
        self.taught, self.cache, self.top = config.taught, config.cache, config.top

    def measure(self, said: Said) -> Tensor:
        if said.kept is not None:
            few = len(said.kept)
            return said.kept.divergence(said.student_NV[:few], said.log_N[:few])
        if said.teacher_NV is None:
            raise UserError("kl compares with the receiver reading the text, and here nothing has read it")
        few, soft = len(said.teacher_NV), self.config.temperature
        t_NV, s_NV, s_log = said.teacher_NV, said.student_NV[:few], said.log_N[:few]
        if soft != 1:
            t_NV, s_NV = t_NV / soft, s_NV / soft
            s_log = torch.logsumexp(s_NV, -1)
        with torch.no_grad():
            t_log = torch.logsumexp(t_NV, -1)
            p_NV = (t_NV - t_log[:, None]).exp()
            own_N = (p_NV * t_NV).sum(-1) - t_log
        kl_N = own_N - (p_NV * s_NV).sum(-1) + s_log
        return kl_N if soft == 1 else soft**2 * kl_N

    def share(self, targets: Targets) -> Tensor:
        if not self.config.tokens:
            return targets.weight_BRT
        return ((targets.place_BRT >= 0) & (targets.place_BRT < self.config.tokens)).float()
