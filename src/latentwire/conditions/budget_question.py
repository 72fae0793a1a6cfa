"""The first M tokens of the context, the question whole: the honest rival of M latents."""

from dataclasses import dataclass

from latentwire.conditions.base import Condition, Given, TextCondition, TextRow


@Condition.register_subclass("budget-question")
@dataclass
class BudgetQuestion(TextCondition):
    """M is the number of K/V positions that the latents take, in tokens of the receiver."""

    by_ratio = True

    def give(self, row: TextRow) -> Given:
        return Given(row.tail, keep=min(row.slots, row.context))
