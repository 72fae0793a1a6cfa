"""What a receiver is given about the context: one file, one condition."""

from latentwire.conditions.base import Condition, Data, Given, LatentCondition, TextCondition, TextRow, VectorCondition
from latentwire.config import discover

discover(__name__, __path__)

__all__ = ["Condition", "Data", "Given", "LatentCondition", "TextCondition", "TextRow", "VectorCondition"]
