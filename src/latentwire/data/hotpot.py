"""HotpotQA's rows (Yang et al. 2018): a question over several paragraphs, picked to distract or found by search.

Both settings, *distractor* and *full wiki*, have one layout: ``context`` is a list of ``[title, [sentence, …]]``. The
``datasets`` library has it as ``{"title": [...], "sentences": [[...]]}``. Either becomes one plain context, paragraph
behind paragraph in the row's order, each with its title in front, since questions name titles.
"""

from __future__ import annotations

from typing import Any

from latentwire.errors import UserError

DATASET = "hotpotqa"


def is_row(row: dict[str, Any]) -> bool:
    """Whether a row has its context in paragraphs."""
    return isinstance(row.get("context"), (list, dict))


def flat(row: dict[str, Any], where: str) -> dict[str, Any]:
    """The row with a plain context, and ``id`` and ``dataset``. UserError: paragraphs of another shape.

    >>> flat({"_id": "5a8", "question": "Who?", "answer": "yes", "context": [["Ed", ["Ed is.", " He was."]]]}, "")
    {'question': 'Who?', 'answer': 'yes', 'context': 'Ed: Ed is. He was.', 'id': '5a8', 'dataset': 'hotpotqa'}
    """
    context = row["context"]
    if isinstance(context, dict):
        titles, sentences = context.get("title"), context.get("sentences")
        if not (isinstance(titles, list) and isinstance(sentences, list) and len(titles) == len(sentences)):
            raise UserError(f"{where}: 'context' is an object without as many 'title' as 'sentences'")
        context = list(zip(titles, sentences, strict=True))
    told = [_paragraph(paragraph, f"{where}, context[{number}]") for number, paragraph in enumerate(context)]
    kept = {key: value for key, value in row.items() if key in ("question", "answer", "answers")}
    name = str(row.get("_id") or row.get("id") or "")
    return kept | {"context": " ".join(told), "id": name, "dataset": str(row.get("dataset") or DATASET)}


def _paragraph(paragraph: Any, where: str) -> str:
    if not (isinstance(paragraph, (list, tuple)) and len(paragraph) == 2):
        raise UserError(f"{where}: expected [title, [sentence, ...]]")
    title, sentences = paragraph
    if not (isinstance(title, str) and isinstance(sentences, list) and all(isinstance(s, str) for s in sentences)):
        raise UserError(f"{where}: expected a title and a list of sentences")
    return f"{title}: {' '.join(' '.join(sentences).split())}"
