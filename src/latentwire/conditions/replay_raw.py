"""The whole prompt behind the head as the receiver's own input embeddings: must score as the text does.

A check of the machinery, like ``replay-anchor``; here no token stands between vectors and answer but the one from which
decoding begins.
"""

from dataclasses import dataclass

from latentwire.conditions.base import Condition, VectorCondition
from latentwire.conditions.vectors import Maker, Reader


@Condition.register_subclass("replay-raw")
@dataclass
class ReplayRaw(VectorCondition):
    """Embeddings of context, question and anchor."""

    by_default = False
    whole = True

    def maker(self, reader: Reader) -> Maker:
        return Maker(reader)
