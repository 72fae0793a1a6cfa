"""The first M tokens of the context, the question whole: the honest rival with as many K/V positions as latents."""

from dataclasses import dataclass

from latentwire.conditions.base import Condition, Given, TextCondition, TextRow


@Condition.register_subclass("budget-question")
@dataclass
class BudgetQuestion(TextCondition):
    by_ratio = True

    def give(self, row: TextRow) -> Given:
        return Given(row.context[: row.latents], row.tail)
