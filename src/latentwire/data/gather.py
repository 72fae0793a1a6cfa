"""Gathers plain text from a folder or a `datasets` set into shards of JSON lines.

A shard is written whole or not at all, and after each one a small file notes how far the source has been read: a run
that was stopped goes on behind its last shard. Texts that hold a passage which results are measured on are left out.
"""

from __future__ import annotations

import json
import lzma
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from latentwire.data.overlap import Overlap
from latentwire.data.progress import progress
from latentwire.data.text import is_text, read_articles
from latentwire.errors import UserError

SHARD = 64_000_000
"""Characters of text in a shard: 17 MB or so when packed."""

FORM = 1
"""Of the shards; another number makes every source be gathered anew."""


@dataclass(frozen=True)
class Source:
    """Where text comes from. limit: articles read at most."""

    name: str
    limit: int | None

    @staticmethod
    def of(text: str, limit: int | None = None) -> Source:
        """A folder that exists, or else the `datasets` set of that name. UserError: neither."""
        if limit is not None and limit < 1:
            raise UserError(f"{limit} articles of text are too few; give at least 1")
        folder = Path(text)
        if folder.is_dir():
            files = sorted(path for path in folder.rglob("*") if is_text(path))
            if not files:
                raise UserError(f"{folder} holds no text (.txt, .md, or .jsonl with 'text'; plain or compressed)")
            return Folder(_plain(folder.resolve().name), limit, folder, tuple(files))
        if folder.exists():
            raise UserError(f"{text} is a file; give the folder that it lies in")
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", text) or text.startswith("."):
            raise UserError(f"there is no folder {text}")
        if find_spec("datasets") is None:
            raise UserError(
                f"there is no folder {text}; for the `datasets` set of that name: pip install 'latentwire[datasets]'"
            )
        return Hub(_plain(text), limit, text)

    def describe(self) -> dict[str, Any]:
        """What must be the same for an unfinished gathering to go on."""
        raise NotImplementedError

    def total(self) -> float | None:
        """The position at the end, where it is known."""
        raise NotImplementedError

    def articles(self, skip: int) -> Iterator[tuple[float, str, str]]:
        """``(position, title, text)`` of each article behind the first ``skip``, always in the same order."""
        raise NotImplementedError


@dataclass(frozen=True)
class Folder(Source):
    """Text files of a folder and the folders below it, in the order of their names; positions in bytes."""

    folder: Path
    files: tuple[Path, ...]

    def describe(self) -> dict[str, Any]:
        stats = [(str(path.relative_to(self.folder)), path.stat()) for path in self.files]
        return {"limit": self.limit, "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]}

    def total(self) -> float | None:
        return float(sum(path.stat().st_size for path in self.files))

    def articles(self, skip: int) -> Iterator[tuple[float, str, str]]:
        return islice(self._all(), skip, self.limit)

    def _all(self) -> Iterator[tuple[float, str, str]]:
        done = 0.0
        for path in self.files:
            for title, text in read_articles(path):
                yield done, title, text
            done += path.stat().st_size


@dataclass(frozen=True)
class Hub(Source):
    """The train part of a `datasets` set, ``name`` or ``name:configuration``, as a stream; positions in articles."""

    path: str

    def describe(self) -> dict[str, Any]:
        return {"limit": self.limit, "datasets": self.path}

    def total(self) -> float | None:
        return None if self.limit is None else float(self.limit)

    def articles(self, skip: int) -> Iterator[tuple[float, str, str]]:
        from datasets import load_dataset

        path, _, configuration = self.path.partition(":")
        try:
            stream = iter(load_dataset(path, configuration or None, split="train", streaming=True).skip(skip))
        except Exception as error:  # the library and what it stands on raise errors of every kind
            raise UserError(f"cannot open the `datasets` set {self.path}: {_first_line(error)}") from None
        for number in range(skip, self.limit or 1 << 62):
            try:
                row = next(stream)
            except StopIteration:
                return
            except Exception as error:
                raise UserError(
                    f"the `datasets` set {self.path} broke off after {number} articles ({_first_line(error)}); "
                    "what is finished stays, the same command goes on from there"
                ) from None
            if not isinstance(row.get("text"), str):
                raise UserError(f"the `datasets` set {self.path} has no column 'text'; it has {', '.join(row)}")
            yield number, str(row.get("title") or ""), row["text"]


def write_shards(source: Source, folder: Path, scratch: Path, overlap: Overlap, guarded: str) -> Iterator[str]:
    """Gather a source into ``folder``; yields a line for each shard.

    overlap, guarded: passages that no text may hold, and a digest of them.
    """
    if isinstance(source, Folder) and folder.resolve().is_relative_to(source.folder.resolve()):
        raise UserError(f"{source.folder} also holds the output {folder}; write it elsewhere")
    notes = scratch / f"{source.name}.json"
    state = _state(notes, folder, {"form": FORM, "guarded": guarded, **source.describe()})
    shards: list[dict[str, Any]] = state["shards"]
    if state["done"]:
        yield f"{folder}: {_sum(shards)} of {source.name}, as before"
        return
    if shards:
        yield f"{folder}: going on behind {_sum(shards)} of {source.name}"
    folder.mkdir(parents=True, exist_ok=True)
    with progress("text", source.total()) as show:
        articles = source.articles(sum(shard["read"] for shard in shards))
        while True:
            shard = _write_shard(articles, folder, scratch, source.name, len(shards), overlap, show)
            if shard is not None:
                shards.append(shard)
            state["done"] = shard is None or shard["chars"] < SHARD
            if not shards or not any(each["kept"] for each in shards):
                raise UserError(f"{source.name} holds no text that can be used")
            _save(notes, state)
            if shard is not None:
                left = (
                    f", {shard['left']:,} left out that hold passages of squad/valid or test" if shard["left"] else ""
                )
                yield f"{folder / shard['file']}: {shard['kept']:,} articles{left}"
            if state["done"]:
                return


def _write_shard(
    articles: Iterator[tuple[float, str, str]],
    folder: Path,
    scratch: Path,
    name: str,
    number: int,
    overlap: Overlap,
    show: Any,
) -> dict[str, Any] | None:
    """The next shard; None where no articles are left."""
    file_name = f"{name}-{number:02d}.jsonl.xz"
    part = scratch / f"{file_name}.{os.getpid()}"
    read = kept = left = chars = 0
    try:
        # the lowest preset: a shard takes seconds, not minutes, and is a tenth larger
        with lzma.open(part, "wt", preset=1, encoding="utf-8", errors="replace") as file:
            for position, title, text in articles:
                read += 1
                if text.strip() and overlap.within(text):
                    left += 1
                elif text.strip():
                    row = {"id": f"{name}-{number}-{kept}", "source": name, "title": title, "text": text}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    kept += 1
                    chars += len(text)
                if read % 50 == 0:
                    show(position, f"shard {number}, {chars / 1e6:.0f} M characters")
                if chars >= SHARD:
                    break
        if not kept:
            return None
        os.replace(part, folder / file_name)
    finally:
        part.unlink(missing_ok=True)
    size = (folder / file_name).stat().st_size
    return {"file": file_name, "size": size, "read": read, "kept": kept, "left": left, "chars": chars}


def _state(notes: Path, folder: Path, want: dict[str, Any]) -> dict[str, Any]:
    """How far an earlier run came with the same source; shards of another state of it are removed."""
    fresh = {"source": want, "shards": [], "done": False}
    if not notes.is_file():
        return fresh
    try:
        state = json.loads(notes.read_text(encoding="utf-8"))
        same, shards = state["source"] == want, state["shards"]
        whole = [(folder / s["file"]).is_file() and (folder / s["file"]).stat().st_size == s["size"] for s in shards]
    except (ValueError, KeyError, TypeError):
        return fresh
    if not same:
        for shard in shards:
            (folder / Path(shard["file"]).name).unlink(missing_ok=True)
        return fresh
    # what follows a missing shard is made again: each shard begins where the one before it ended
    good = whole.index(False) if False in whole else len(whole)
    return {"source": want, "shards": shards[:good], "done": state["done"] and good == len(whole)}


def _save(notes: Path, state: dict[str, Any]) -> None:
    part = notes.with_name(f"{notes.name}.{os.getpid()}")
    part.write_text(json.dumps(state, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(part, notes)


def _sum(shards: list[dict[str, Any]]) -> str:
    return f"{sum(shard['kept'] for shard in shards):,} articles in {len(shards)} files"


def _plain(name: str) -> str:
    return re.sub(r"[^\w]+", "-", name).strip("-") or "text"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
