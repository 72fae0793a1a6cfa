"""Texts to be encoded, one a line of JSON, read one at a time: there may be millions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from latentwire.data.files import COMPRESSED, read_jsonl
from latentwire.data.rows import check_words
from latentwire.errors import UserError

FIELDS = ("text", "context")
"""Where a row's text stands, whichever of them it has."""


class TextRow(NamedTuple):
    """name: its ``id``, or ``row-7`` for what stands in the seventh line. question: None where it was not asked for."""

    name: str
    text: str
    question: str | None


def is_jsonl(path: str | Path) -> bool:
    """Whether a file is JSON lines by its name, compressed or not."""
    name = Path(path).name
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return name.endswith((".jsonl", ".ndjson"))


def read_texts(path: str | Path, questions: bool = False) -> Iterator[TextRow]:
    """Rows of JSON lines with ``text`` (or ``context``), perhaps ``id``, and ``question`` where questions are wanted.

    UserError, with file and line: one of them is missing, blank, or no text.
    """
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        field = next((each for each in FIELDS if each in row), None)
        if field is None:
            raise UserError(f"{where}: expected 'text' or 'context', found {', '.join(map(repr, row)) or 'nothing'}")
        for key in (field, "question") if questions else (field,):
            if not isinstance(row.get(key), str):
                raise UserError(f"{where}: {key!r} is {'missing' if key not in row else 'not a string'}")
            check_words(row[key], repr(key), where)
        name = row.get("id")
        label = f"row-{number}" if name is None or name == "" else str(name)
        yield TextRow(label, row[field], row["question"] if questions else None)
