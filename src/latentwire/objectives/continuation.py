"""Continue the text behind the passage: the larger part of alignment pretraining (ARC-Encoder, about 80 %).

Reconstruction alone makes a decoder recite; continuation makes it use what it has read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentwire.objectives.base import Objective, ObjectiveConfig, Passages, Rows


@ObjectiveConfig.register_subclass("continuation")
@dataclass
class ContinuationConfig(ObjectiveConfig):
    def build(self) -> Continuation:
        return Continuation(self)


class Continuation(Objective):
    """One row a passage: the tokens that follow it."""

    source = "text"

    def cut(self, passages: Passages, width: int, generator: torch.Generator) -> Rows | None:
        if passages.next_BT is None or passages.next_count_B is None:
            return None
        ids_BT = passages.next_BT[:, :width]
        place_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        target = (place_T >= 1) & (place_T < passages.next_count_B[:, None])
        return Rows(ids_BT[:, None], target[:, None])
