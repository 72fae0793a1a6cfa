"""The receiver's own input embeddings in place of its tokens, in the layout of latents: must score as the text does.

A check of the machinery: vectors are read, placed and asked as latents are, and hold all that the text holds. What is
lost here would be lost by any soft token. The anchor is text, as it is behind latents.
"""

from dataclasses import dataclass

from latentwire.conditions.base import Condition, VectorCondition
from latentwire.conditions.vectors import Maker, Reader


@Condition.register_subclass("replay-anchor")
@dataclass
class ReplayAnchor(VectorCondition):
    """Embeddings of what latents stand for (in prompt mode the question too), then the rest of the prompt as text."""

    by_default = False

    def maker(self, reader: Reader) -> Maker:
        return Maker(reader)
