"""Control: all values of a text's latents permuted over slots and channels: same statistics, no meaning."""

from dataclasses import dataclass

import torch

from latentwire.conditions.base import Condition, LatentCondition, generator
from latentwire.types import Latents


@Condition.register_subclass("shuffled")
@dataclass
class Shuffled(LatentCondition):
    def change(self, latents: Latents, articles: list[str], seed: int) -> Latents:
        B, M, D = latents.z_BMD.shape
        luck = torch.rand(B, M, D, generator=generator(seed)).to(latents.z_BMD.device)
        # masked values get the highest luck, so that a text's own values are permuted among themselves
        luck = luck.masked_fill(~latents.mask_BM[..., None], 2.0)
        order = luck.flatten(1).argsort(-1)
        return latents.with_z(latents.z_BMD.flatten(1).gather(1, order).view(B, M, D))
