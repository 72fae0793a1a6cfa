"""What a wire is trained for: one file, one objective."""

from latentwire.config import discover
from latentwire.objectives.base import KeptTeacher, Objective, ObjectiveConfig, Passages, Rows
from latentwire.objectives.schedule import Schedule

discover(__name__, __path__)

__all__ = ["KeptTeacher", "Objective", "ObjectiveConfig", "Passages", "Rows", "Schedule"]
