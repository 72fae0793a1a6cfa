"""Anyone's rows as examples: SQuAD-shaped JSON, or JSON lines with context, question and answers."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from latentwire.data import hotpot
from latentwire.data.files import COMPRESSED, parse_row, read_jsonl, read_text
from latentwire.errors import UserError
from latentwire.types import Example

ENVIRONMENT = "LATENTWIRE_DATA"


def data_dir(flag: str | Path | None = None) -> Path:
    """The folder with training data: ``--data-dir``, or else the environment's LATENTWIRE_DATA."""
    where = flag or os.environ.get(ENVIRONMENT)
    if not where:
        raise UserError(
            f"no data folder: give --data-dir DIR or set {ENVIRONMENT} (`latentwire data prepare` makes one)"
        )
    path = Path(where)
    if not path.is_dir():
        raise UserError(f"there is no data folder {path}; `latentwire data prepare --out {path}` makes one")
    return path


def read_examples(path: str | Path) -> list[Example]:
    """All rows of a file, in order: ``.json`` (SQuAD-shaped, or a list of rows), or else JSON lines; both may be
    compressed (``.gz``, ``.xz``, ``.zst``).

    A row has ``context``, ``question``, ``answers`` (a list of strings, a string, or SQuAD's ``{"text": [...]}``; an
    empty list: the context does not answer it, as in SQuAD 2.0), and perhaps ``id`` and ``dataset``. Rows of HotpotQA
    are read as well (see ``data/hotpot.py``). UserError: no such file, no rows, a malformed row (with its line; none is
    skipped).
    """
    path = Path(path)
    plain = path.name
    for ending in COMPRESSED:
        plain = plain.removesuffix(ending)
    examples = _tree(path) if plain.endswith(".json") else _lines(path)
    if not examples:
        raise UserError(f"{path} holds no rows")
    return examples


def draw(examples: list[Example], n: int | None, seed: int) -> list[Example]:
    """``n`` of the examples, drawn by the seed; all of them, in their order, where ``n`` is None or not fewer."""
    return examples if n is None or n >= len(examples) else random.Random(seed).sample(examples, n)


def example(row: Any, where: str, fallback_id: str) -> Example:
    """One row checked; ``where`` (file and line) begins the error."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object with context, question and answers")
    if hotpot.is_row(row):
        row = hotpot.flat(row, where)
    for key in ("context", "question"):
        if not isinstance(row.get(key), str):
            raise UserError(f"{where}: {key!r} is {'missing' if key not in row else 'not a string'}")
        check_words(row[key], repr(key), where)
    answers = row.get("answers", row.get("answer"))
    if isinstance(answers, dict):
        answers = answers.get("text")
    if isinstance(answers, str):
        answers = [answers]
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f"{where}: 'answers' must be a string, a list of strings, or {{'text': [...]}}")
    for answer in answers:
        check_words(answer, "an answer", where)
    return Example(
        id=str(row.get("id") or fallback_id),
        context=row["context"],
        question=row["question"],
        answers=tuple(answers),
        dataset=str(row.get("dataset") or ""),
    )


def check_words(text: str, what: str, where: str) -> None:
    """Refuse a text that is blank or that no tokenizer takes."""
    if not text.strip():
        raise UserError(f"{where}: {what} is empty")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON may spell half of a pair (\ud83d), which is no character
        raise UserError(f"{where}: {what} holds half of a surrogate pair, which is no character") from None


def _lines(path: Path) -> list[Example]:
    found = []
    for number, row in read_jsonl(path):
        if isinstance(row.get("data"), list) and "context" not in row:
            raise UserError(f"{path}, line {number}: this is SQuAD-shaped JSON, not JSON lines; name the file .json")
        found.append(example(row, f"{path}, line {number}", f"row-{number}"))
    return found


def _tree(path: Path) -> list[Example]:
    tree = read_tree(path)
    if isinstance(tree, list):
        return [example(row, where, f"row-{n}") for n, (where, row) in enumerate(tree, 1)]
    return [example(a.row, a.where, f"{a.title}-{a.paragraph}-{a.question}") for a in walk(tree, path)]


def read_tree(path: Path) -> dict[str, Any] | list[tuple[str, Any]]:
    """A .json file: SQuAD's ``{"data": [...]}``, or rows as ``(where each stands, row)``."""
    text = read_text(path)
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # many call JSON lines .json
            lines = [(f"{path}, line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
            return [(where, parse_row(line, where)) for where, line in lines]
        if not text.strip():
            raise UserError(f"{path} holds no rows") from None
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise UserError(f"{path}: not valid JSON (nested too deeply)") from None
    if isinstance(tree, list):
        return [(f"{path}, row {n}", row) for n, row in enumerate(tree, 1)]
    if isinstance(tree, dict) and "context" in tree:
        return [(f"{path}, row 1", tree)]
    if not isinstance(tree, dict) or not isinstance(tree.get("data"), list):
        raise UserError(f"{path}: expected SQuAD's {{'data': [...]}}, a list of rows, or JSON lines")
    return tree


class Asked(NamedTuple):
    """A question of a SQuAD-shaped file: where it stands, for people and as numbers, and its row, yet to be checked."""

    where: str
    title: str
    paragraph: int
    question: int
    row: dict[str, Any]


def walk(tree: dict[str, Any], path: Path) -> Iterator[Asked]:
    """Every question in SQuAD's shape. UserError: what is missing or of another type, and where."""
    for a, article in enumerate(tree["data"]):
        where = f"{path}, data[{a}]"
        for p, paragraph in enumerate(_list(article, "paragraphs", where)):
            inside = f"{where}.paragraphs[{p}]"
            for q, qa in enumerate(_list(paragraph, "qas", inside)):
                if not isinstance(qa, dict):
                    raise UserError(f"{inside}.qas[{q}]: expected an object with 'question' and 'answers'")
                row = {key: node[key] for key, node in (("context", paragraph), ("question", qa)) if key in node}
                row |= {"id": qa.get("id"), "answers": _texts(qa.get("answers"))}
                yield Asked(f"{inside}.qas[{q}]", str(article.get("title", a)), p, q, row)


def _texts(answers: Any) -> Any:
    # SQuAD has {"text", "answer_start"} for each answer; anything else is left as it is, to be refused
    if isinstance(answers, list):
        return [answer.get("text") if isinstance(answer, dict) else answer for answer in answers]
    return answers


def _list(node: Any, key: str, where: str) -> list[Any]:
    if not isinstance(node, dict) or not isinstance(node.get(key), list):
        raise UserError(f"{where}: not SQuAD-shaped, expected an object with a list {key!r}")
    return node[key]
