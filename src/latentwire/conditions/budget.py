"""The first M tokens of the prompt, wherever they end, then the anchor: what a plain cut costs, question included.

M is the number of K/V positions that the latents take, in tokens of the receiver. The head is not counted, as
it is not for latents.
"""

from dataclasses import dataclass

from latentwire.conditions.base import Condition, Given, TextCondition, TextRow


@Condition.register_subclass("budget")
@dataclass
class Budget(TextCondition):
    """Context first, question last: a context of M tokens leaves nothing of the question."""

    by_ratio = True

    def give(self, row: TextRow) -> Given:
        question = row.tail[: len(row.tail) - len(row.anchor)]
        left = max(row.slots - row.context, 0)
        return Given(question[:left] + row.anchor, keep=min(row.slots, row.context))
