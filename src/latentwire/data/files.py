"""Opening text files, compressed or not, and reading JSON lines with their line numbers.

Compressed files are checked to their end: one that was cut short is refused, never read as if it were whole.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from latentwire.errors import UserError

COMPRESSED = (".gz", ".xz", ".zst")
"""Endings that are unpacked on the way."""

# utf-8-sig drops the mark that some editors put in front of a file; it would otherwise be part of the first row
_UTF8 = "utf-8-sig"
_CHUNK = 1 << 18


def open_text(path: str | Path) -> IO[str]:
    """A UTF-8 text file for reading; ``.gz``, ``.xz`` and ``.zst`` are unpacked on the way.

    UserError: no such file, or ``.zst`` without the extra ``data``.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; a file is needed")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=_UTF8)
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding=_UTF8)
    if path.suffix == ".zst":
        return io.TextIOWrapper(io.BufferedReader(_Zstandard(path), _CHUNK), encoding=_UTF8)
    return path.open(encoding=_UTF8)


def read_text(path: str | Path) -> str:
    """The whole of a text file, compressed or not."""
    with open_text(path) as file, readable(path):
        return file.read()


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """``(line number from 1, row)`` of each line that is not blank.

    UserError, with file and line: not JSON, not an object, not UTF-8, cut short.
    """
    with open_text(path) as file, readable(path):
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, parse_row(line, f"{path}, line {number}")


def parse_row(line: str, where: str) -> dict[str, Any]:
    """One line as a JSON object; ``where`` names it in the error."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise UserError(f"{where}: not valid JSON (nested too deeply)") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object, found a {type(row).__name__}")
    return row


@contextmanager
def readable(path: str | Path) -> Generator[None]:
    """What can go wrong while a file is being read, as one line for a person."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start} of a block)") from None
    except EOFError:
        raise UserError(f"{path} is cut short: its compressed data ends too early; get it again") from None
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} cannot be unpacked ({error}); get it again") from None


class _Zstandard(io.RawIOBase):
    """Unpacked bytes of a .zst file. The library's own reader stops without a word at the end of the first frame and at
    the end of a file that was cut short; this one reads all frames and raises EOFError."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            import zstandard
        except ImportError:
            raise UserError(f"reading {path.name} needs the extra 'data': pip install 'latentwire[data]'") from None
        self._module = zstandard
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._frame.unused_data if self._frame.eof else b""
            packed = packed or self._file.read(_CHUNK)
            if not packed:
                if self._begun and not self._frame.eof:
                    raise EOFError
                return 0
            if self._frame.eof:
                self._frame = self._module.ZstdDecompressor().decompressobj()
            self._begun = True
            try:
                self._ready = memoryview(self._frame.decompress(packed))
            except self._module.ZstdError as error:
                raise zlib.error(str(error)) from None
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def lines_of(path: Path) -> list[str]:
    """The lines of a file of JSON lines, cut at line feeds alone: an answer may hold what ``splitlines`` takes for the
    end of one (U+2028, U+0085)."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
