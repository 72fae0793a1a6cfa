"""Cross-entropy of the first K answer tokens once more, K fixed or growing while training goes on.

Errors early in an answer are those that decoding does not recover from.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Targets


@ObjectiveConfig.register_subclass("first-tokens")
@dataclass
class FirstTokensConfig(ObjectiveConfig):
    """tokens: K, at the beginning of training. grown: K at its end, growing in a line (0: it stays as it is)."""

    tokens: int = 4
    grown: int = 0

    def build(self) -> FirstTokens:
        if self.tokens < 1:
            raise UserError(f"first-tokens.tokens is a number of tokens, at least 1, not {self.tokens}")
        if self.grown and self.grown < self.tokens:
            raise UserError(f"first-tokens.grown ({self.grown}) must be at least first-tokens.tokens ({self.tokens})")
        return FirstTokens(self)


class FirstTokens(Objective):
    role = "judge"
    source = "questions"
    config: FirstTokensConfig

    def share(self, targets: Targets) -> Tensor:
        more = max(self.config.grown - self.config.tokens, 0)
        # each number of tokens lasts as long as the others
        count = self.config.tokens + (targets.progress * (more + 1)).floor().clamp_max(more)
        return ((targets.place_BRT >= 0) & (targets.place_BRT < count)).float()
