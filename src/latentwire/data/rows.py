"""Anyone's rows as examples: SQuAD-shaped JSON, or JSON lines with context, question and answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from latentwire.data.files import open_text, read_jsonl
from latentwire.errors import UserError
from latentwire.types import Example

ENVIRONMENT = "LATENTWIRE_DATA"


def data_dir(flag: str | Path | None = None) -> Path:
    """The folder with training data: ``--data-dir``, or else the environment's LATENTWIRE_DATA."""
    where = flag or os.environ.get(ENVIRONMENT)
    if not where:
        raise UserError(f"no data folder: give --data-dir DIR or set {ENVIRONMENT} (`latentwire data prepare` makes one)")
    path = Path(where)
    if not path.is_dir():
        raise UserError(f"there is no data folder {path}")
    return path


def read_examples(path: str | Path) -> list[Example]:
    """All rows of a file. A malformed row is refused with its line number, never skipped."""
    path = Path(path)
    plain = path.name
    for ending in (".gz", ".xz", ".zst"):
        plain = plain.removesuffix(ending)
    examples = _squad(path) if plain.endswith(".json") else _lines(path)
    if not examples:
        raise UserError(f"{path} holds no rows")
    return examples


def _lines(path: Path) -> list[Example]:
    return [example(row, f"{path}, line {number}", f"row-{number}") for number, row in read_jsonl(path)]


def _squad(path: Path) -> list[Example]:
    with open_text(path) as file:
        try:
            tree = json.load(file)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not valid JSON: {error}") from None
    if isinstance(tree, list):
        return [example(row, f"{path}, row {n}", f"row-{n}") for n, row in enumerate(tree, 1)]
    if not isinstance(tree, dict) or not isinstance(tree.get("data"), list):
        raise UserError(f"{path}: expected SQuAD's {{'data': [...]}} or a list of rows; for JSON lines name it .jsonl")
    found = []
    for a, article in enumerate(tree["data"]):
        try:
            for p, paragraph in enumerate(article["paragraphs"]):
                for q, qa in enumerate(paragraph["qas"]):
                    row = {"context": paragraph["context"], "question": qa["question"], "id": qa.get("id"),
                           "answers": [answer["text"] for answer in qa.get("answers", [])]}  # fmt: skip
                    where = f"{path}, article {a}, paragraph {p}, question {q}"
                    found.append(example(row, where, f"{article.get('title', a)}-{p}-{q}"))
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}, article {a}: not SQuAD-shaped ({type(error).__name__}: {error})") from None
    return found


def example(row: Any, where: str, fallback_id: str) -> Example:
    """One row checked: context and question are words, answers a list of words, a word, or SQuAD's ``{"text": []}``."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object with context, question and answers")
    for key in ("context", "question"):
        if not isinstance(row.get(key), str):
            raise UserError(f"{where}: {key!r} is {'missing' if key not in row else 'not a string'}")
        if not row[key].strip():
            raise UserError(f"{where}: {key!r} is empty")
    answers = row.get("answers", row.get("answer"))
    if isinstance(answers, dict):
        answers = answers.get("text")
    if isinstance(answers, str):
        answers = [answers]
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers) or not answers:
        raise UserError(f"{where}: 'answers' must be a string, a list of strings with at least one, or {{'text': [...]}}")
    return Example(
        id=str(row.get("id") or fallback_id),
        context=row["context"],
        question=row["question"],
        answers=tuple(answers),
        dataset=str(row.get("dataset", "")),
    )
