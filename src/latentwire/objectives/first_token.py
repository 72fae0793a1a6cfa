"""Cross-entropy of the first answer token once more: the token that the question alone does not give away.

With the answer's beginning right the rest mostly follows, and a mean over all tokens hides that it lags. While it does,
its weight grows by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Targets


@ObjectiveConfig.register_subclass("first-token")
@dataclass
class FirstTokenConfig(ObjectiveConfig):
    """most: while the first tokens of a step are harder than those behind them, they count as many times more as their
    cross-entropy is larger, up to so many times (1: never)."""

    most: float = 1.0

    def build(self) -> FirstToken:
        if self.most < 1:
            raise UserError(f"first-token.most is a factor of at least 1, not {self.most}")
        return FirstToken(self)


class FirstToken(Objective):
    role = "judge"
    source = "questions"
    config: FirstTokenConfig

    def share(self, targets: Targets) -> Tensor:
        first_BRT = (targets.place_BRT == 0).float()
        if self.config.most == 1:
            return first_BRT
        rest_BRT = (targets.place_BRT > 0).float()
        first, rest = ((targets.ce_BRT * x).sum() / x.sum().clamp_min(1) for x in (first_BRT, rest_BRT))
        # answers of one token have no rest to lag behind
        lag = (first / rest.clamp_min(1e-6)).clamp(1.0, self.config.most)
        return first_BRT * lag.where(rest_BRT.sum() > 0, 1.0)
