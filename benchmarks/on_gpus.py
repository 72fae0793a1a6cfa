"""Everything that needs GPUs, in one go: ``python benchmarks/on_gpus.py --data-dir DIR --minutes 28``.

A queue over the GPUs there are: the first job of ``on_gpus_jobs.py`` that fits a free place is begun, alone on a GPU or
beside others, as its line says. What would not be over in ``--minutes`` is not begun. A job that failed is tried
once more; one that is finished is not done again, so the same command goes on where it was stopped. Every
figure is a file in ``OUT/results``, written as soon as it is known, every job's words are in ``OUT/logs``, and
``OUT/times.jsonl`` says what took how long.

Jobs that share a GPU take turns on it, unless CUDA's multi-process service runs and ``CUDA_MPS_PIPE_DIRECTORY`` says
where: then their kernels run side by side.

    python benchmarks/on_gpus.py --data-dir DIR --dry-run
    python benchmarks/on_gpus.py --data-dir DIR --only scale curves --out runs/gpus
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from on_gpus_job import Job
from on_gpus_jobs import jobs

from latentwire.experiments import processes

RESULTS = Path(__file__).resolve().parent / "results"
LOOK = 0.5
TRIES = 2


@dataclass
class Running:
    """A job, its process, where it is and since when."""

    job: Job
    process: subprocess.Popen
    places: list[str]
    began: float


@dataclass
class Queue:
    """What is to be done and what runs. free: the part of each GPU that nobody has."""

    todo: list[Job]
    free: dict[str, float]
    out: Path
    until: float = float("inf")
    running: list[Running] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    tried: dict[str, int] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.began = self.clock()
        for folder in ("logs", "done", "results"):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        self.done |= {path.name for path in (self.out / "done").iterdir()}
        self.todo = [job for job in self.todo if job.name not in self.done]
        # jobs that were left out are waited for by nobody: what they make may be there
        self.wanted = {job.name for job in self.todo}

    def places(self, job: Job) -> list[str]:
        """GPUs that a job would have now, the emptiest first; none if there is no room."""
        room = [gpu for gpu, left in self.free.items() if left >= job.share - 1e-6]
        room.sort(key=lambda gpu: -self.free[gpu])
        return room[: job.gpus] if len(room) >= job.gpus else []

    def begin(self) -> None:
        """Begin what may begin, in the order of the list. A job of several GPUs keeps others from what it waits for."""
        kept: list[Job] = []
        held: set[str] = set()
        for job in self.todo:
            if (set(job.after) & self.wanted) - self.done:
                kept.append(job)
                continue
            if self.clock() + job.seconds > self.until:
                self.late.append(job.name)
                continue
            places = [gpu for gpu in self.places(job) if gpu not in held]
            if len(places) < job.gpus:
                kept.append(job)
                if job.gpus > 1:
                    held |= set(sorted(self.free, key=lambda gpu: -self.free[gpu])[: job.gpus])
                continue
            self.start(job, places)
        self.todo = kept

    def start(self, job: Job, places: list[str]) -> None:
        """One process for all commands of a job, one behind the other."""
        for gpu in places:
            self.free[gpu] -= job.share
        shown = ",".join(places) if places != ["cpu"] else ""
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": shown}
        if job.share == 1 or self.tried.get(job.name):
            # a process that has a GPU to itself gains nothing by sharing's daemon, and a second try does without it
            environment.pop("CUDA_MPS_PIPE_DIRECTORY", None)
        with (self.out / "logs" / f"{job.name}.txt").open("w") as log:
            process = subprocess.Popen(
                " && ".join(shlex.join(words) for words in job.commands), shell=True, stdout=log,
                stderr=subprocess.STDOUT, env=environment,
            )  # fmt: skip
        self.running.append(Running(job, process, places, self.clock()))

    def collect(self) -> None:
        """Take in what is over."""
        for one in list(self.running):
            code = one.process.poll()
            if code is None:
                continue
            self.running.remove(one)
            for gpu in one.places:
                self.free[gpu] += one.job.share
            name = one.job.name
            self.tried[name] = self.tried.get(name, 0) + 1
            why = "" if code == 0 else processes.reason(self.out / "logs" / f"{name}.txt", code)
            line = {"job": name, "at": round(one.began - self.began), "seconds": round(self.clock() - one.began),
                    "gpus": one.places, "failed": why}  # fmt: skip
            with (self.out / "times.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            if code == 0:
                (self.out / "done" / name).touch()
                self.done.add(name)
            elif self.tried[name] < TRIES:
                self.todo.append(one.job)

    def run(self) -> list[str]:
        """Do all; returns the names of what was not done."""
        wanted = [job.name for job in self.todo]
        while self.todo or self.running:
            self.begin()
            if not self.running:
                break  # what is left waits for something that failed or came too late
            time.sleep(LOOK)
            self.collect()
        return [name for name in wanted if name not in self.done]


def chosen(todo: list[Job], only: list[str]) -> list[Job]:
    """Jobs named in ``only`` (where none has that name: whose names begin so), in its order; all, if it is empty."""
    if not only:
        return todo
    names = {job.name for job in todo}

    def meant(word: str, name: str) -> bool:
        return name == word if word in names else name.startswith(word)

    first = {job.name: next((n for n, word in enumerate(only) if meant(word, job.name)), None) for job in todo}
    return sorted((job for job in todo if first[job.name] is not None), key=lambda job: first[job.name] or 0)


def main(argv: list[str] | None = None) -> int:
    """The command; exit code 1 if something was not done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--data-dir", required=True, help="folder with squad/, nq/ and text/ (and written/, for codes)")
    parser.add_argument("--out", type=Path, default=Path("runs/gpus"))
    parser.add_argument("--wire", default="sandbox", help="the wire that is measured")
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        metavar="NAME",
        help="jobs, by name or by the beginning of their names, in this order",
    )
    parser.add_argument("--minutes", type=float, help="begin nothing that would last longer")
    parser.add_argument("--steps", type=int, default=600, help="of each short run of curves and methods")
    parser.add_argument("--n", type=int, default=0, help="questions of each evaluation (0: all)")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    given = parser.parse_args(argv)
    given.out = given.out.resolve()
    todo = chosen(list(jobs(given)), given.only)
    if given.dry_run:
        for job in todo:
            where = f"{job.gpus} GPU" if job.gpus > 1 or job.share == 1 else f"{job.share:g} GPU"
            print(f"# {job.name}: {where}, {job.seconds} s", *map(shlex.join, job.commands), sep="\n")
        return 0
    gpus = processes.visible_gpus() or ["cpu"]
    (given.out / "results").mkdir(parents=True, exist_ok=True)
    for name in ("curves.json", "methods.json", "variants.json"):  # their runs of the same budget are not repeated
        if (RESULTS / name).is_file() and not (given.out / "results" / name).exists():
            shutil.copy(RESULTS / name, given.out / "results" / name)
    queue = Queue(todo, dict.fromkeys(gpus, 1.0), given.out)
    if given.minutes is not None:
        queue.until = queue.began + 60 * given.minutes
    missing = queue.run()
    for name in missing:
        print(f"{name}: {'too late to begin' if name in queue.late else 'not done'}", file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
