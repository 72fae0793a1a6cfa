"""The latents of the text: what this project is about."""

from dataclasses import dataclass

from latentwire.conditions.base import Condition, LatentCondition


@Condition.register_subclass("latents")
@dataclass
class LatentsOfText(LatentCondition):
    """As they come out of the packet."""

    by_bits = True
