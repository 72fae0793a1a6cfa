"""An empty context in the same layout: what the receiver knows, or guesses, without having read anything."""

from dataclasses import dataclass

from latentwire.conditions.base import Condition, Given, TextCondition, TextRow


@Condition.register_subclass("none")
@dataclass
class Nothing(TextCondition):
    """The head alone, then the question."""

    def give(self, row: TextRow) -> Given:
        return Given(row.tail)
