"""Control: the latents of another article, the question unchanged. What is answered now was not read in the latents."""

from dataclasses import dataclass

import torch

from latentwire.conditions.base import Condition, Data, LatentCondition, generator


@Condition.register_subclass("wrong")
@dataclass
class Wrong(LatentCondition):
    """Each text is given a partner by luck; its questions share that partner."""

    def not_applicable(self, data: Data) -> str | None:
        return None if len(set(data.articles)) > 1 else "all texts are of one article, there is no other one"

    def sources(self, articles: list[str], seed: int) -> list[int]:
        luck = generator(seed)
        places = torch.randperm(len(articles), generator=luck).tolist()
        # from a random start on, the first text that is not of the own article
        starts = torch.randint(len(articles), (len(articles),), generator=luck).tolist()
        chosen = []
        for own, start in zip(articles, starts, strict=True):
            turned = (places[(start + step) % len(places)] for step in range(len(places)))
            chosen.append(next(place for place in turned if articles[place] != own))
        return chosen
