"""The latents of the text: what this project is about."""

from dataclasses import dataclass

from latentwire.conditions.base import Condition, LatentCondition
from latentwire.types import Latents


@Condition.register_subclass("latents")
@dataclass
class LatentsOfText(LatentCondition):
    by_bits = True

    def change(self, latents: Latents, articles: list[str], seed: int) -> Latents:
        return latents
