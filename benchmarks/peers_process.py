"""Peers as processes of their own, each in its own environment: started, watched, and heard out."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKERS = Path(__file__).resolve().parent / "peers"
Line = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """environment: its name in ``peers/NAME.txt``. worker: its file in ``peers/``. methods: measured at every ratio.
    extra: what its job holds beside what all jobs hold."""

    name: str
    environment: str
    worker: str
    methods: tuple[str, ...]
    extra: dict[str, Any]


def module(name: str) -> Any:
    """A file of ``peers/`` as a module; ``peers`` itself is the name of the command beside it, and no package."""
    spec = importlib.util.spec_from_file_location(f"peers_{name}", WORKERS / f"{name}.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def run_worker(
    python: Path, worker: Path, job: dict[str, Any], folder: Path, threads: int, tick: Callable[[int], None]
) -> str | None:
    """Run a worker on a job to its end; returns why it failed.

    tick: told how many lines of answers there are, while they come. What the worker says goes to ``worker.log``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(job, indent=1), encoding="utf-8")
    answers = Path(job["answers"])
    # this project's packages are not those of the worker's environment
    mine = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    set_to = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    with (folder / "worker.log").open("w") as log:
        try:
            process = subprocess.Popen(
                [str(python), str(worker), str(folder / "job.json")],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=mine | set_to,
            )
        except OSError as error:
            return f"{python.name} cannot be started: {error.strerror}"
        try:
            while process.poll() is None:
                time.sleep(0.2)
                tick(count_lines(answers))
        except BaseException:  # Ctrl-C included: the worker must not go on alone
            process.kill()
            raise
    tick(count_lines(answers))
    if process.returncode == 0:
        return None
    if process.returncode < 0:  # what it said last has nothing to do with it
        return f"it was ended by signal {-process.returncode}"
    return clean(module("environment").last_line(folder / "worker.log")) or f"exit code {process.returncode}"


@contextmanager
def bar(words: str, total: int) -> Generator[Callable[[int], None], None, None]:
    """A progress bar that is told how many there are."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TextColumn("answers"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(words, total=total)
        yield lambda done: progress.update(task, completed=done)


def count_lines(path: Path) -> int:
    """Lines of a file that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def clean(why: str) -> str:
    """A reason without what names a machine or makes a table cell burst: paths, addresses, bars."""
    why = re.sub(r"'?https?://\S+", "…", why)
    why = re.sub(r"\bhost='[^']*'", "host", why)
    why = re.sub(r"(?<!\w)/[\w.+/-]+", "…", why)
    return why.replace("|", "/")[:300]


def read_answers(
    path: Path, ids: Sequence[str], baseline: int | None = None
) -> tuple[dict[tuple[str, int | None], list[Line]], dict[tuple[str, int | None], str]]:
    """By method and ratio: answers in the order of ``ids``, where all are there; and why others are not.

    A method that could not be run at any ratio has its reason under the ratio None. baseline: of so many questions
    the method ``text`` has an answer, of all if None.
    """
    by_key: dict[tuple[str, int | None], dict[str, Line]] = {}
    failed: dict[tuple[str, int | None], str] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        line = json.loads(text)
        key = line["method"], line["ratio"]
        if "failed" in line:
            failed[key] = clean(line["failed"])
        else:
            by_key.setdefault(key, {})[line["id"]] = line
    whole = {}
    for key, lines in by_key.items():
        if key in failed:
            continue
        wanted = ids[:baseline] if key[0] == "text" else ids
        if missing := [id for id in wanted if id not in lines]:
            failed[key] = f"only {len(wanted) - len(missing)} of {len(wanted)} questions were answered"
        else:
            whole[key] = [lines[id] for id in wanted]
    return whole, failed
