"""The whole context as text: the score that latents are measured against. Never with anything trained attached."""

from dataclasses import dataclass

from latentwire.conditions.base import Condition, Given, TextCondition, TextRow


@Condition.register_subclass("text")
@dataclass
class Text(TextCondition):
    """Every token of the context."""

    def give(self, row: TextRow) -> Given:
        return Given(row.tail, keep=row.context)
