"""Let an asker write: ``python -m latentwire.sandbox.asking CHECKPOINT [--passages N] [--data-dir DIR]``.

Passages are those of people's questions to train on, then plain text's (of the articles that the readers have not seen
questions of). What it writes goes to ``DATA/written/*.jsonl``, rows as everywhere, for ``corpus.written`` of a training
config. A question stays if its answer stands in its passage. Articles that hold passages kept aside are left out.
Several processes share the work by ``--part``; a later run goes on with ``--skip``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from latentwire.data import cloze
from latentwire.data.overlap import Overlap
from latentwire.data.progress import progress
from latentwire.data.rows import data_dir
from latentwire.data.squad import load_split
from latentwire.data.text import iter_articles
from latentwire.errors import UserError
from latentwire.receivers import Receiver
from latentwire.receivers.decode import generate
from latentwire.receivers.load import load_receiver
from latentwire.receivers.receiver import pad
from latentwire.sandbox.asker import read_back
from latentwire.shipped import resolve

TOKENS = 144
"""New tokens for a passage: about six answers with their questions."""

SORTED = 8
"""Batches among which passages are sorted by length."""


def passages(data: Path, part: int, parts: int, skip: int = 0) -> Iterator[str]:
    """Every ``parts``-th passage behind the first ``skip``, from the ``part``-th on."""
    return islice(_passages(data), skip + part, None, parts)


def _passages(data: Path) -> Iterator[str]:
    yield from dict.fromkeys(example.context for example in load_split(data, "train"))
    aside = Overlap(example.context for example in load_split(data, "dev"))
    for article in iter_articles(data, lines="odd"):
        found = list(cloze.passages(article))
        if found and not aside.within(article):
            yield from found


@torch.no_grad()
def ask(asker: Receiver, texts: list[str], temperature: float, seed: int) -> list[list[tuple[str, str]]]:
    """(answer, question) pairs about each text, those whose answer stands in it and that were not written before."""
    prompt = asker.prompt
    mask_BT, ids_BT = pad(prompt.context_ids(texts), prompt.pad_id, asker.device)
    prefix = asker.read(ids_BT, mask_BT, asker.head_for(len(texts)))
    written = generate(asker, prefix, [prompt.anchor_ids()] * len(texts), TOKENS, temperature=temperature, seed=seed)
    found = []
    for text, said in zip(texts, written.texts, strict=True):
        by_question = {question: answer for answer, question in reversed(read_back(said, prompt)) if answer in text}
        found.append([(answer, question) for question, answer in reversed(by_question.items())])
    return found


def write(
    asker: Receiver, texts: Iterator[str], path: Path, count: int, *,
    batch: int = 512, longest: int = 256, temperature: float = 0.8, seed: int = 0, minutes: float = 0.0,
) -> tuple[int, int]:  # fmt: skip
    """Write questions about ``count`` texts, or for so many minutes; returns how many (passages, questions).

    longest: the asker's tokens of a passage; longer ones are left out.
    """
    until = time.monotonic() + 60 * minutes if minutes else float("inf")
    many = asked = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w", encoding="utf-8") as file, progress("passages", count) as show:
        while many < count and time.monotonic() < until:
            block = list(islice(texts, min(SORTED * batch, count - many)))
            if not block:
                break
            lengths = list(map(len, asker.prompt.context_ids(block)))
            order = sorted((i for i in range(len(block)) if lengths[i] <= longest), key=lengths.__getitem__)
            for start in range(0, len(order), batch):
                group = [block[i] for i in order[start : start + batch]]
                said = ask(asker, group, temperature, seed + many)
                for number, (text, pairs) in enumerate(zip(group, said, strict=True)):
                    for answer, question in pairs:
                        name = f"{path.stem}-{many + number}"
                        row = {"id": f"{name}-{asked}", "context": text, "question": question, "answers": [answer]}
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
                        asked += 1
                many += len(group)
                show(many, f"{asked:,} questions")
                if time.monotonic() > until:
                    break
    if not asked:
        partial.unlink()
        raise UserError(f"no question about {many} passages could be used; this asker has learnt too little")
    partial.replace(path)
    return many, asked


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m latentwire.sandbox.asking", description=(__doc__ or "").split(":")[0] + "."
    )
    parser.add_argument("asker", help="a checkpoint's folder (`python -m latentwire.sandbox.asker` trains one)")
    parser.add_argument("--passages", type=int, default=120_000, help="how many are asked about, over all parts")
    parser.add_argument(
        "--skip", type=int, default=0, help="passages at the beginning that are left out: on from there"
    )
    parser.add_argument("--part", default="0/1", help="I/N: this process's share of the work")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.8, help="0: the likeliest questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so many (0: no limit)")
    parser.add_argument("--data-dir", help="folder with squad/ and text/ (else LATENTWIRE_DATA)")
    parser.add_argument("--out", type=Path, help="file of rows (default: DATA/written/SKIP-PART.jsonl)")
    given = parser.parse_args(arguments)
    try:
        data = data_dir(given.data_dir)
        part, parts = _part(given.part)
        if given.passages < parts or given.batch < 1 or given.temperature < 0 or given.skip < 0:
            raise UserError("--passages is at least the number of parts, --batch at least 1, the others at least 0")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        asker = load_receiver(resolve(given.asker), device=device)
        path = given.out or data / "written" / f"{given.skip:07}-{part}-of-{parts}.jsonl"
        many, asked = write(
            asker, passages(data, part, parts, given.skip), path, given.passages // parts, batch=given.batch,
            temperature=given.temperature, seed=given.seed + 7919 * part, minutes=given.minutes,
        )  # fmt: skip
        print(f"{path}: {asked:,} questions about {many:,} passages")
    except UserError as error:
        sys.exit(f"error: {error}")


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise UserError(f"--part is I/N with I from 0 to N - 1, not {text!r}")
    return int(part), int(parts)


if __name__ == "__main__":
    main()
