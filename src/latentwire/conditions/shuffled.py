"""Control: all values of a text's latents permuted over slots and channels: same values, no meaning."""

from dataclasses import dataclass

import torch

from latentwire.conditions.base import Condition, LatentCondition, generator
from latentwire.types import Latents


@Condition.register_subclass("shuffled")
@dataclass
class Shuffled(LatentCondition):
    """Each text has a permutation of its own, by seed and by its place in the data."""

    def change(self, latents: Latents, places: list[int], seed: int) -> Latents:
        z_BMD = latents.z_BMD.clone()
        for row, place in enumerate(places):
            # masked slots take no part: a text's own values are permuted among themselves
            own_MD = z_BMD[row, latents.mask_BM[row]]
            order = torch.randperm(own_MD.numel(), generator=generator(seed * 1_000_003 + place))
            z_BMD[row, latents.mask_BM[row]] = own_MD.flatten()[order.to(own_MD.device)].view_as(own_MD)
        return latents.with_z(z_BMD)
