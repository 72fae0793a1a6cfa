"""Control: the latents of another article, the question unchanged. What is answered now was not read in the latents."""

from dataclasses import dataclass

import torch

from latentwire.conditions.base import Condition, LatentCondition, generator
from latentwire.errors import UserError
from latentwire.types import Latents


@Condition.register_subclass("wrong")
@dataclass
class Wrong(LatentCondition):
    def change(self, latents: Latents, articles: list[str], seed: int) -> Latents:
        return latents.take(partners(articles, seed).to(latents.z_BMD.device))


def partners(articles: list[str], seed: int) -> torch.Tensor:
    """For each text the index of a text of another article (int64 [B]), by luck."""
    if len(set(articles)) < 2:
        raise UserError("the control 'wrong' needs texts of at least two articles (or two contexts); give more rows")
    names = {name: number for number, name in enumerate(dict.fromkeys(articles))}
    own = torch.tensor([names[name] for name in articles])
    luck = generator(seed)
    chosen = torch.randint(len(own), (len(own),), generator=luck)
    while (same := own[chosen] == own).any():
        chosen[same] = torch.randint(len(own), (int(same.sum()),), generator=luck)
    return chosen
