"""A reader's training data, tokenised once: shards of plain text, of made questions and of real ones.

One job makes one shard and writes it whole or not at all, so an interrupted run goes on where it stopped, and shards
of a part of the text may be made before the rest is there. Jobs are independent and run on all cores.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentwire.data import cloze
from latentwire.data.files import read_jsonl
from latentwire.data.rows import read_examples
from latentwire.data.squad import load_split
from latentwire.errors import UserError
from latentwire.prompt import Prompt, PromptConfig
from latentwire.sandbox import packing, tokenizers
from latentwire.sandbox.config import ReaderConfig
from latentwire.types import Example

PARTS = ("text", "asked", "made")
"""``text-*.npy``: token ids; ``made-*.npz``: rows of questions made from text; ``asked.npz``: of real ones."""


@dataclass(frozen=True)
class Job:
    """One shard to make: ``source`` (a text file, or the data folder for real questions) -> ``target``."""

    kind: str
    source: Path
    target: Path
    tokenizer: Path
    row: int
    seed: int
    limit: int | None
    every: int = 1  # made questions: of every n-th article


def text_files(data: Path) -> list[Path]:
    """The files of plain text under ``data/text``, in order of name."""
    files = sorted(p for p in (data / "text").glob("*.jsonl*") if "wikinews" not in p.name)
    if not files:
        raise UserError(f"there is no text under {data / 'text'}; `latentwire data prepare` makes text/*.jsonl.*")
    return files


def tokenizer(config: ReaderConfig, data: Path, path: Path) -> None:
    """Put the reader's tokenizer at ``path``: the shipped one, or one fitted to a sample of the text."""
    if path.exists():
        return
    try:
        if config.shipped_tokenizer:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tokenizers.shipped(config.name), path)
            return
    except UserError:
        pass  # a reader of one's own: fitted below

    def sample() -> Iterator[str]:
        wanted = tuple(filter(None, config.tokenizer_text.split(",")))
        for file in sorted((data / "text").glob("*.jsonl*")) if wanted else text_files(data):
            if not file.name.startswith(wanted or ""):
                continue
            for line, row in read_jsonl(file):
                if config.limit is not None and line > config.limit:
                    break
                if line % config.tokenizer_sample == 0:
                    yield f"{row['title']}\n{row['text']}"

    tokenizers.save(tokenizers.train(config.tokenizer, config.shape.vocabulary, sample()), path)


def jobs(
    data: Path, out: Path, tokenizer: Path, row: int, seed: int, limit: int | None = None, every: int = 1
) -> dict[str, list[Job]]:
    """Every shard of a reader by part. ``limit``: rows read per file. ``every``: questions of every n-th article."""
    todo: dict[str, list[Job]] = {"asked": [Job("asked", data, out / "asked.npz", tokenizer, row, seed, limit)]}
    for kind, ending in (("text", "npy"), ("made", "npz")):
        todo[kind] = [
            Job(
                kind,
                source,
                out / f"{kind}-{source.name.split('.')[0]}.{ending}",
                tokenizer,
                row,
                seed + number,
                limit,
                every,
            )
            for number, source in enumerate(text_files(data))
        ]
    return todo


def build(todo: Iterable[Job], workers: int) -> list[Path]:
    """Make every shard that is not there yet; returns them all, in order."""
    todo = list(todo)
    missing = [job for job in todo if not job.target.exists()]
    for job in missing:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    if workers <= 1:
        for job in missing:
            make(job)
    elif missing:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the pool is the parallelism
        # spawned, for a training process with a GPU and threads cannot be forked; niced, for it launches kernels
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(missing)), context, initializer=os.nice, initargs=(10,)) as pool:
            list(pool.map(make, missing))
    return [job.target for job in todo]


def make(job: Job) -> None:
    """Make one shard."""
    prompt = Prompt(PromptConfig(), tokenizers.load(job.tokenizer))
    if job.kind == "text":
        _save(job.target, _text(job, prompt))
        return
    groups = _asked(job, prompt) if job.kind == "asked" else _made(job, prompt)
    _save(job.target, packing.pack(groups, job.row))


def _articles(job: Job) -> Iterable[str]:
    for line, row in read_jsonl(job.source):
        if job.limit is not None and line > job.limit:
            return
        if job.kind == "made" and line % job.every:
            continue
        yield f"{row['title']}\n{row['text']}"


def _text(job: Job, prompt: Prompt) -> np.ndarray:
    parts: list[np.ndarray] = []
    for batch in _batches(_articles(job), 64):
        for ids in prompt.ids(batch):
            parts.append(np.array([prompt.bos_id, *ids, prompt.eos_id], np.uint16))
    return np.concatenate(parts)


def _made(job: Job, prompt: Prompt) -> list[packing.Group]:
    rng = random.Random(job.seed)
    passages = (p for article in _articles(job) for p in cloze.passages(article))
    asked = (made for p in passages for made in [cloze.questions(p, rng)] if made[1])
    groups: list[packing.Group] = []
    for batch in _batches(asked, 256):
        groups += _groups(prompt, batch)
    rng.shuffle(groups)
    return groups


def _asked(job: Job, prompt: Prompt) -> list[packing.Group]:
    examples: list[Example] = load_split(job.source, "train")
    for nq in sorted((job.source / "nq").glob("train.jsonl*")):
        examples += read_examples(nq)
    examples = examples[: job.limit]
    by_context: dict[str, list[tuple[str, str]]] = {}
    for example in examples:
        if example.answers:
            by_context.setdefault(example.context, []).append((example.question, example.answers[0]))
    groups = _groups(prompt, list(by_context.items()))
    random.Random(job.seed).shuffle(groups)
    return groups


def _groups(prompt: Prompt, batch: list[tuple[str, list[tuple[str, str]]]]) -> list[packing.Group]:
    head = prompt.head_ids()
    contexts = prompt.context_ids([context for context, _ in batch])
    pairs = [pair for _, made in batch for pair in made]
    questions = iter(prompt.question_ids([q for q, _ in pairs]))
    answers = iter(prompt.answer_ids([a for _, a in pairs]))
    return [
        packing.Group(head + ids, [(next(questions), next(answers)) for _ in made])
        for ids, (_, made) in zip(contexts, batch, strict=True)
    ]


def _batches(items: Iterable, size: int) -> Iterable[list]:
    held = []
    for item in items:
        held.append(item)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held


def _save(target: Path, value: np.ndarray | packing.Rows) -> None:
    partial = target.with_name(f".{os.getpid()}-{target.name}")
    with partial.open("wb") as file:
        if isinstance(value, np.ndarray):
            np.save(file, value)
        else:
            np.savez(file, ids=value.ids, segment=value.segment, position=value.position, role=value.role)
    partial.replace(target)


def load_text(paths: Iterable[Path], row: int) -> np.ndarray:
    """Token ids of the shards as rows ``[N, row]`` uint16; the tail that fills no row is dropped."""
    flat = np.concatenate([np.load(path, allow_pickle=False) for path in paths])
    return flat[: len(flat) // row * row].reshape(-1, row)


def load_rows(paths: Iterable[Path]) -> packing.Rows:
    """The question rows of several shards."""
    parts = []
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            parts.append(packing.Rows(file["ids"], file["segment"], file["position"], file["role"]))
    return packing.Rows.join(parts)
