"""Mean and covariance of slots, held to those of the passages' token embeddings (CORAL, Sun & Saenko 2016).

No slot is told where to be, only that together they should lie where the receiver's embeddings do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Sent
from latentwire.objectives.vectors import same_width
from latentwire.receivers import Receiver


@ObjectiveConfig.register_subclass("manifold")
@dataclass
class ManifoldConfig(ObjectiveConfig):
    """mean, covariance: weights of the squared distance of the means, in units of the embeddings' mean square, and of
    the covariances, in units of the embeddings' covariance squared."""

    mean: float = 1.0
    covariance: float = 1.0

    def build(self) -> Manifold:
        if min(self.mean, self.covariance) < 0 or not self.mean + self.covariance:
            raise UserError(
                f"manifold.mean ({self.mean}) and .covariance ({self.covariance}) are weights, at least one above 0"
            )
        return Manifold(self)


class Manifold(Objective):
    role = "passage"
    config: ManifoldConfig

    def fit(self, link: nn.Module, width: int, receiver: Receiver, encoder: nn.Module) -> None:
        same_width("manifold", width, receiver)

    def passage(self, sent: Sent, own: nn.Module | None) -> tuple[Tensor, dict[str, Tensor]]:
        mean_E, spread_EE = statistics(sent.slots_BSE, sent.mask_BS)
        with torch.no_grad():
            goal_E, goal_EE = statistics(sent.tokens_BTE, sent.token_mask_BT)
        mean = (mean_E - goal_E).square().mean() / sent.token_rms.square().clamp_min(1e-12)
        spread = (spread_EE - goal_EE).square().sum() / goal_EE.square().sum().clamp_min(1e-12)
        figures = {"mean": mean.detach(), "covariance": spread.detach()}
        return self.config.mean * mean + self.config.covariance * spread, figures


def statistics(x_BTE: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [E] and covariance [E, E] of the vectors where ``mask_BT`` is set."""
    count, mask_BT1 = mask_BT.sum().clamp_min(1), mask_BT[..., None]
    mean_E = (x_BTE * mask_BT1).sum((0, 1)) / count
    away_NE = ((x_BTE - mean_E) * mask_BT1).flatten(0, 1)
    return mean_E, away_NE.mT @ away_NE / count
