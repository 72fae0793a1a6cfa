"""Opening text files, compressed or not, and reading JSON lines with their line numbers."""

from __future__ import annotations

import gzip
import io
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from latentwire.errors import UserError


def open_text(path: str | Path) -> IO[str]:
    """A text file for reading; ``.gz``, ``.xz`` and ``.zst`` are unpacked on the way."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    if path.suffix == ".zst":
        try:
            import zstandard
        except ImportError:
            raise UserError(f"reading {path.name} needs the extra 'data': pip install 'latentwire[data]'") from None
        return io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(path.open("rb")), encoding="utf-8")
    return path.open(encoding="utf-8")


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """``(line number from 1, row)`` of each line that is not blank."""
    with open_text(path) as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise UserError(f"{path}, line {number}: expected a JSON object, found a {type(row).__name__}")
                yield number, row
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error.msg} at column {error.colno})") from None
        except (UnicodeDecodeError, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise UserError(f"{path}, after line {number}: cannot be read ({error})") from None
