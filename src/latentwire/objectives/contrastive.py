"""Different texts should have different latents: those of a step are pushed apart by the cosine of their means.

``infonce`` (van den Oord et al. 2018) with each text as its own positive, which leaves the spreading half of it
(uniformity, Wang & Isola 2020); ``hinge`` pushes only pairs that are closer than ``margin``. Latents that collapse to
one answer for all texts are what it is against.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Sent

KINDS = ("infonce", "hinge")


@ObjectiveConfig.register_subclass("contrastive")
@dataclass
class ContrastiveConfig(ObjectiveConfig):
    """kind: ``infonce`` or ``hinge``. temperature: of infonce. margin: cosine up to which hinge leaves a pair alone."""

    kind: str = "infonce"
    temperature: float = 0.1
    margin: float = 0.2

    def build(self) -> Contrastive:
        if self.kind not in KINDS:
            raise UserError(f"contrastive.kind is {' or '.join(KINDS)}, not {self.kind!r}")
        if self.temperature <= 0:
            raise UserError(f"contrastive.temperature must be above 0, not {self.temperature}")
        if not -1 <= self.margin < 1:
            raise UserError(f"contrastive.margin is a cosine from -1 to below 1, not {self.margin}")
        return Contrastive(self)


class Contrastive(Objective):
    role = "passage"
    least = 2
    config: ContrastiveConfig

    def passage(self, sent: Sent, own: nn.Module | None) -> tuple[Tensor, dict[str, Tensor]]:
        z_BMD = sent.latents.z_BMD.float()
        B = len(z_BMD)
        if self.least > B:
            raise UserError("contrastive compares different texts: a step needs at least two passages (passages: 2)")
        mean_BD = z_BMD.sum(1) / sent.latents.count_B.clamp_min(1)[:, None]  # masked latents are zero
        unit_BD = F.normalize(mean_BD, dim=-1)
        cosine_BB = unit_BD @ unit_BD.mT
        same_BB = torch.eye(B, dtype=torch.bool, device=cosine_BB.device)
        if self.config.kind == "hinge":
            loss = (cosine_BB - self.config.margin).relu().masked_fill(same_BB, 0.0).sum() / (B * B - B)
        else:
            loss = torch.logsumexp((cosine_BB.masked_fill(same_BB, 1.0) - 1) / self.config.temperature, -1).mean()
        alike = cosine_BB.detach().masked_fill(same_BB, 0.0).sum() / (B * B - B)
        return loss, {"alike": alike}
