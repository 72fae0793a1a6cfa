"""Control: latents of zeros in the same number. Must fall to the score without context."""

from dataclasses import dataclass

import torch

from latentwire.conditions.base import Condition, LatentCondition
from latentwire.types import Latents


@Condition.register_subclass("zero")
@dataclass
class Zero(LatentCondition):
    """Same slots at the same places, nothing in them."""

    def change(self, latents: Latents, places: list[int], seed: int) -> Latents:
        return latents.with_z(torch.zeros_like(latents.z_BMD))
