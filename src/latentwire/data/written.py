"""Questions that a small model has written about passages (see sandbox/asker.py): ``DATA/written/*.jsonl``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from latentwire.data.rows import read_examples
from latentwire.data.text import is_text
from latentwire.errors import UserError
from latentwire.types import Example


def written(data: Path, passages: int) -> list[Example]:
    """The questions about the first so many passages, files in the order of their names.

    UserError: there are none.
    """
    folder = data / "written"
    files = sorted(path for path in folder.iterdir() if is_text(path)) if folder.is_dir() else []
    if not files:
        raise UserError(
            f"{folder} holds no written questions (corpus.written); `python -m latentwire.sandbox.asking` writes them"
        )
    rows = [row for path in files for row in read_examples(path)]
    chosen = set(islice(dict.fromkeys(row.context for row in rows), passages))
    return [row for row in rows if row.context in chosen]
