"""What the task files in ``examples/harness`` name: rows that come along, or anyone's, and their official scores."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from latentwire.data.rows import draw, read_examples
from latentwire.data.squad import shipped_valid
from latentwire.evaluation.metrics import exact_match, score
from latentwire.types import Example


def rows(data: str | None = None, n: int | None = None, seed: int = 0, **_: Any) -> dict[str, Dataset]:
    """The split ``test`` of the shipped SQuAD questions, or of the file ``data``; ``n`` of them, the same that
    ``latentwire eval --n`` draws by this seed.

    The harness hands ``--metadata`` and ``--model_args`` to it, of which the latter is for the model.
    """
    examples = draw(read_examples(data or shipped_valid()), n, seed)
    return {"test": Dataset.from_list([vars(e) | {"answers": list(e.answers)} for e in examples])}


def scores(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """F1 and exact match of an answer by the rule of the row's dataset, as ``latentwire eval`` has them."""
    example = Example(doc["id"], doc["context"], doc["question"], tuple(doc["answers"]), doc["dataset"])
    return {"f1": score(results[0], example), "exact_match": exact_match(results[0], example.answers)}
