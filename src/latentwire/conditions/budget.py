"""The first M tokens of the prompt, wherever they end, then the anchor: what a plain cut costs, question included."""

from dataclasses import dataclass

from latentwire.conditions.base import Condition, Given, TextCondition, TextRow


@Condition.register_subclass("budget")
@dataclass
class Budget(TextCondition):
    by_ratio = True

    def give(self, row: TextRow) -> Given:
        question = row.tail[: max(len(row.tail) - len(row.anchor), 0)]
        left = max(row.latents - len(row.context), 0)
        return Given(row.context[: row.latents], question[:left] + row.anchor)
