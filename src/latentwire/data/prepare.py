"""Makes the files that training reads (``squad/*.jsonl`` and ``text/*.jsonl.xz``) from what anyone can get.

SQuAD: the public train-v1.1.json and the list of articles in ``squad-split.tsv`` name the rows that the shipped weights
were trained on, and a digest says whether a run came out with exactly those. Articles that are not on the list (those
of the official dev set) go to a file of their own that no training reads.

Every file is written whole or not at all. Running it again makes what is missing and leaves the rest as it is.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from latentwire.data.files import read_jsonl
from latentwire.data.gather import Source, write_shards
from latentwire.data.overlap import Overlap
from latentwire.data.progress import progress
from latentwire.data.rows import example, read_tree, walk
from latentwire.data.squad import shipped_valid, split_list
from latentwire.errors import UserError

TRAIN_DIGEST = "64c3c7ff5400498969e46a34146d16a1c229f3b065466b9b1eb1dae66a6117a7"
"""Of the train rows that the shipped weights were trained on; see :func:`digest`."""

SCRATCH = ".prepare"
"""Folder below the output for what is not whole yet, and for what the next run has to know."""


def prepare(
    out: str | Path, squad: Sequence[str | Path] = (), text: str | None = None, articles: int | None = None
) -> Iterator[str]:
    """Write the data of training below ``out``; yields a line for each thing done.

    squad: SQuAD v1.1 JSON files (train-v1.1.json; dev-v1.1.json may be given too).
    text: a folder of plain text (.txt, .md, .jsonl, also compressed), or the name of a `datasets` set with a column
    ``text`` (``wikimedia/wikipedia:20231101.en``; the extra ``datasets``).
    articles: no more than so many articles of text.

    UserError: nothing given, or an input that cannot be read; what is already finished stays.
    """
    out = Path(out)
    if not squad and text is None:
        raise UserError("nothing to prepare: give --squad train-v1.1.json, --text FOLDER|NAME, or both")
    source = None if text is None else Source.of(text, articles)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; a folder is needed")
    scratch = out / SCRATCH
    scratch.mkdir(parents=True, exist_ok=True)
    if squad:
        yield from _squad(out, scratch, [Path(path) for path in squad])
    if source is not None:
        guarded = _contexts([shipped_valid(), out / "squad" / "test.jsonl"])
        yield from write_shards(source, out / "text", scratch, Overlap(guarded), _digest_of(guarded))
    if not any(scratch.iterdir()):
        scratch.rmdir()


def _squad(out: Path, scratch: Path, paths: list[Path]) -> Iterator[str]:
    train, test, seen = _sorted(paths)
    listed, _ = split_list()
    if train:
        yield _write(out / "squad" / "train.jsonl", scratch, train)
        missing = sorted(set(listed) - seen)
        if missing:
            count = f"{len(missing)} of {len(listed)} train articles"
            yield f"{count} are missing ({missing[0]} …): give train-v1.1.json whole"
        elif digest(train) == TRAIN_DIGEST:
            yield "squad/train.jsonl holds the very rows that the shipped weights were made from"
        else:
            yield "squad/train.jsonl differs from the rows that the shipped weights were made from: not the v1.1 file?"
    else:
        yield "no article of SQuAD's train-v1.1.json was given: no squad/train.jsonl"
    if test:
        yield (
            _write(out / "squad" / "test.jsonl", scratch, test)
            + ", from articles that are not listed; never trained on"
        )
    # the valid rows come along with the package: no need to find them in the public file again
    yield _write(out / "squad" / "valid.jsonl", scratch, [row for _, row in read_jsonl(shipped_valid())])


def _sorted(paths: list[Path]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], set[str]]:
    """Rows of listed train articles, rows of unlisted ones, and the titles of all."""
    listed, valid = split_list()
    train: list[dict[str, Any]] = []
    test: list[dict[str, Any]] = []
    asked: set[tuple[str, str]] = set()
    origin: dict[str, Path] = {}
    reach: dict[str, int] = {}
    with progress("SQuAD") as show:
        for path in paths:
            tree = read_tree(path)
            if isinstance(tree, list):
                raise UserError(f"{path} is not SQuAD v1.1 JSON ({{'data': [{{'title', 'paragraphs'}}]}})")
            for number, (where, title, p, q, raw) in enumerate(walk(tree, path)):
                if origin.setdefault(title, path) != path:
                    raise UserError(f"article {title!r} stands in {origin[title]} and in {path}; give each file once")
                if number % 1000 == 0:
                    show(number, f"{number} questions of {path.name}")
                reach[title] = max(reach.get(title, 0), p)
                if title in valid or (title in listed and not listed[title].has(p, q)):
                    continue
                part = "train" if title in listed else "dev"
                row = _row(raw, where, f"squad_v1-{part}-{title}-{p}-{q}")
                key = row["context"], row["question"]
                if key not in asked:
                    asked.add(key)
                    (train if title in listed else test).append(row)
    for title, furthest in reach.items():
        if title in listed and max(listed[title].paragraphs) > furthest:
            raise UserError(
                f"article {title!r} in {origin[title]} has {furthest + 1} paragraphs, "
                f"SQuAD v1.1 has at least {max(listed[title].paragraphs) + 1}; get train-v1.1.json again"
            )
    return train, test, set(reach)


def _row(raw: dict[str, Any], where: str, name: str) -> dict[str, Any]:
    checked = example(raw, where, name)
    answers = list(dict.fromkeys(" ".join(answer.split()) for answer in checked.answers))
    return {
        "id": name,
        "dataset": "squad_v1",
        "context": " ".join(checked.context.split()),
        "question": " ".join(checked.question.split()),
        "answers": answers,
    }


def digest(rows: Iterable[dict[str, Any]]) -> str:
    """SHA-256 over rows in any order: id, context, question and answers."""
    lines = [json.dumps([row[k] for k in ("id", "context", "question", "answers")], ensure_ascii=False) for row in rows]
    return _digest_of(sorted(lines))


def _digest_of(lines: Iterable[str]) -> str:
    whole = hashlib.sha256()
    for line in lines:
        whole.update(line.encode() + b"\n")
    return whole.hexdigest()


def _contexts(paths: list[Path]) -> list[str]:
    return list(dict.fromkeys(row["context"] for path in paths if path.is_file() for _, row in read_jsonl(path)))


def _write(path: Path, scratch: Path, rows: list[dict[str, Any]]) -> str:
    """Rows as JSON lines, whole or not at all; a file that already holds them is not touched."""
    part = scratch / f"{path.name}.{os.getpid()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if path.is_file() and path.stat().st_size == part.stat().st_size and filecmp.cmp(path, part, shallow=False):
        part.unlink()
        return f"{path}: {len(rows):,} rows, as before"
    os.replace(part, path)
    return f"{path}: {len(rows):,} rows"
