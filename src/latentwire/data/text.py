"""Articles of plain text for alignment pretraining."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from latentwire.data.files import open_text, read_jsonl
from latentwire.errors import UserError

ENDINGS = ("*.jsonl", "*.jsonl.zst", "*.jsonl.xz", "*.jsonl.gz", "*.txt")


def iter_articles(directory: str | Path, limit: int | None = None) -> Iterator[str]:
    """Articles in ``directory/text`` (or in the folder itself): JSON lines with ``text`` and perhaps ``title``, or
    ``.txt`` files. Files are read in the order of their names."""
    folder = Path(directory)
    if (folder / "text").is_dir():
        folder = folder / "text"
    files = sorted(path for ending in ENDINGS for path in folder.glob(ending))
    if not files:
        raise UserError(f"{folder} holds no text (.jsonl with 'text', plain or compressed, or .txt)")
    seen = 0
    for path in files:
        for article in _articles(path):
            if limit is not None and seen >= limit:
                return
            seen += 1
            yield article


def _articles(path: Path) -> Iterator[str]:
    if path.suffix == ".txt":
        with open_text(path) as file:
            yield file.read()
        return
    for number, row in read_jsonl(path):
        if not isinstance(row.get("text"), str):
            raise UserError(f"{path}, line {number}: 'text' is missing")
        yield f"{row['title']}\n{row['text']}" if row.get("title") else row["text"]
