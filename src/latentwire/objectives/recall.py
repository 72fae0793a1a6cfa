"""Cued recall: the first tokens of a window of the passage are given, the rest of the window must follow.

Unlike reciting from the beginning it asks for any place of the text, as a question does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentwire.objectives.base import Objective, ObjectiveConfig, Passages, Rows, window_rows


@ObjectiveConfig.register_subclass("recall")
@dataclass
class RecallConfig(ObjectiveConfig):
    """rows: windows a passage. cue: tokens that are given."""

    rows: int = 3
    cue: int = 4

    def build(self) -> Recall:
        return Recall(self)


class Recall(Objective):
    """``rows`` windows at random places of each passage."""

    source = "text"
    config: RecallConfig

    def cut(self, passages: Passages, width: int, generator: torch.Generator) -> Rows | None:
        B = passages.count_B.shape[0]
        luck_BR = torch.rand(B, self.config.rows, generator=generator, device=passages.count_B.device)
        # starts reach far enough to the end that the last tokens are asked for as often as the others
        latest_B = (passages.count_B - width // 2).clamp_min(0)
        start_BR = (luck_BR * (latest_B[:, None] + 1)).long()
        return window_rows(passages, start_BR, width, self.config.cue)
