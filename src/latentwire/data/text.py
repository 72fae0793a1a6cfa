"""Articles of plain text for alignment pretraining."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from latentwire.data.files import COMPRESSED, read_jsonl, read_text
from latentwire.errors import UserError

ENDINGS = (".jsonl", ".txt", ".md")


def text_files(directory: str | Path) -> list[Path]:
    """Files of text in ``directory/text``, or in the folder itself, in the order of their names."""
    folder = Path(directory)
    if (folder / "text").is_dir():
        folder = folder / "text"
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; a folder with text is needed (.jsonl with 'text', .txt or .md)")
    files = sorted(path for path in folder.iterdir() if is_text(path))
    if not files:
        raise UserError(f"{folder} holds no text (.jsonl with 'text', .txt or .md, plain or compressed)")
    return files


LINES = ("all", "odd", "even")


def iter_articles(directory: str | Path, limit: int | None = None, lines: str = "all") -> Iterator[str]:
    """At most ``limit`` articles of a folder (see :func:`text_files`): the title, a line break, the text.

    A row of JSON lines is an article with ``text`` and perhaps ``title``; a .txt or .md file is one. Blank ones are
    left out. lines: ``odd`` or ``even``, only articles at such places of their file, the first being 1.
    """
    wanted = {"all": (0, 1), "odd": (1,), "even": (0,)}[lines]
    seen = 0
    for path in text_files(directory):
        for number, (title, text) in enumerate(read_articles(path), 1):
            if limit is not None and seen >= limit:
                return
            if text.strip() and number % 2 in wanted:
                seen += 1
                yield f"{title}\n{text}" if title else text


def read_articles(path: Path) -> Iterator[tuple[str, str]]:
    """``(title or "", text)`` of each article of one file. UserError: a malformed row, with its line."""
    if ".jsonl" not in path.suffixes:
        yield "", read_text(path)
        return
    for number, row in read_jsonl(path):
        title, text = row.get("title") or "", row.get("text")
        if not isinstance(text, str) or not isinstance(title, str):
            raise UserError(f"{path}, line {number}: {'text' if isinstance(title, str) else 'title'!r} is no string")
        yield title, text


def is_text(path: Path) -> bool:
    """Whether a file is one of text by its name."""
    name = path.name
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    # a name that begins with a dot is an unfinished or hidden file
    return name.endswith(ENDINGS) and not name.startswith(".") and path.is_file()
