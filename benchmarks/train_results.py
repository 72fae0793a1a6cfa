"""Train what README's figures come from: ``python benchmarks/train_results.py --data-dir DIR`` (make train-results).

On GPUs. From the wire that comes along (or ``--start``): a model that asks, what it writes about plain text, some runs
of one config (``--config``) that differ in their seed, their best mean, the late joiner for it, and all of it measured.
Each step is a command that README and docs name; what is finished is not done again, so the same command goes on where
it was stopped. ``--dry-run`` prints all commands.

    python benchmarks/train_results.py --data-dir DIR --out runs/results --runs 3 --minutes 10.4
    python benchmarks/train_results.py --data-dir DIR --until mean
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from latentwire.experiments import processes

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs" / "sandbox"
Command = list[str]


@dataclass(frozen=True)
class Step:
    """Commands that run side by side, and the paths that are there when they are over."""

    name: str
    commands: list[Command]
    made: list[Path] = field(default_factory=list)

    def finished(self) -> bool:
        """Whether all that it makes is there."""
        return all(path.exists() for path in self.made)


def module(name: str, *words: str | Path | int) -> Command:
    return [sys.executable, "-m", name, *map(str, words)]


def train(config: str, out: Path, given: argparse.Namespace, *more: str) -> Command:
    """One training run, on the corpus that all of them share."""
    shared = [f"corpus.cache={given.out / 'cache'}", "corpus.seed=0", f"corpus.written={given.passages}", *given.set]
    return module("latentwire", "train", CONFIGS / config, "--data-dir", given.data, "--out", out, *shared, *more)


def steps(given: argparse.Namespace, gpus: int) -> Iterator[Step]:
    """The whole chain, in order."""
    out, data = given.out, given.data
    checkpoint = out / "askers" / "asker" / "checkpoint"
    asker = module("latentwire.sandbox.asker", CONFIGS / "askers" / "asker.yaml", f"out={out / 'askers'}")
    yield Step("asker", [[*asker, "--data-dir", str(data), *given.asker]], [checkpoint])

    parts = max(1, 3 * gpus)
    written = [data / "written" / f"{number}.jsonl" for number in range(parts)]
    asking = [
        module("latentwire.sandbox.asking", checkpoint, "--data-dir", data, "--part", f"{number}/{parts}", "--skip",
               given.skip, "--passages", given.passages, "--out", path)
        for number, path in enumerate(written)
    ]  # fmt: skip
    wires = [out / f"wire-{seed}" for seed in range(given.runs)]
    start = f"start={given.start}"
    # text needs no written questions: it is tokenised meanwhile
    text = [*train(given.config, out / "none", given, start), "objectives={continuation: {type: continuation}}"]
    text = [*text, "draws=[]", "--prepare"]
    yield Step("asking", [*asking, text], written)
    yield Step("stores", [[*train(given.config, out / "none", given, start), "--prepare"]], [])
    yield Step(
        "wires",
        [
            train(given.config, wire, given, start, f"seed={seed}", f"minutes={given.minutes}")
            for seed, wire in enumerate(wires)
        ],
        [wire / "wire" for wire in wires],
    )
    mean = out / "mean"
    judged = module("latentwire.training.soup", mean, *[wire / "wire" for wire in wires], "--data-dir", data, "--dev",
                    given.dev)  # fmt: skip
    if given.runs > 1:
        yield Step("mean", [[*judged, "--config", str(wires[0] / "config.yaml")]], [mean])
    best = mean if given.runs > 1 else wires[0] / "wire"
    yield Step("rounded", [module("latentwire.sandbox.ship", best, out / "rounded", "--rounded")], [out / "rounded"])
    join = train("join.yaml", out / "join", given, f"start={out / 'rounded'}", f"minutes={given.join_minutes}")
    yield Step("join", [join], [out / "join" / "wire"])
    final, shipped = out / "final", out / "shipped"
    yield Step("final", [module("latentwire.sandbox.ship", out / "join" / "wire", final, "--rounded")], [final])
    yield Step("shipped", [module("latentwire.sandbox.ship", out / "join" / "wire", shipped)], [shipped])
    nq = next(iter(sorted((given.data / "nq").glob("valid.jsonl*"))), None)
    everything = [sys.executable, str(ROOT / "benchmarks" / "evaluate_all.py"), str(final), "--out", str(out / "all")]
    everything += ["--parallel", str(max(2, 5 * gpus)), *(["--nq", str(nq)] if nq else [])]
    everything += ["--n", str(given.n)] if given.n else []
    yield Step("evaluated", [everything], [out / "all" / "sandbox-full"])


def view(data: Path, out: Path) -> Path:
    """A folder with everything of ``data`` by link, and room for what is written: ``data`` itself is left as it is."""
    folder = out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for path in data.iterdir():
        link = folder / path.name
        if path.name != "written" and not link.exists():
            link.symlink_to(path.resolve(), target_is_directory=path.is_dir())
    return folder


def run(step: Step, out: Path, gpus: list[str]) -> list[str]:
    """All commands of a step side by side; returns why some failed. Their words go to ``OUT/logs``."""
    logs, failed = out / "logs", []
    logs.mkdir(parents=True, exist_ok=True)

    def one(item: tuple[int, Command], gpu: str | None) -> str | None:
        path = logs / f"{step.name}-{item[0]}.txt"
        # one command has all GPUs: it spreads its own work
        place = gpu if len(step.commands) > 1 else None
        with path.open("w") as log:
            code = subprocess.run(
                item[1], stdout=log, stderr=subprocess.STDOUT, check=False,
                env=processes.environment(place) if place else dict(os.environ),
            ).returncode  # fmt: skip
        return None if code == 0 else f"{path.name}: {processes.reason(path, code)}"

    def over(_: tuple[int, Command], why: str | None) -> None:
        if why:
            failed.append(why)

    todo = list(enumerate(step.commands))
    processes.run_all(todo, len(todo), gpus, one, over)
    return failed


def main(argv: list[str] | None = None) -> int:
    """The command; exit code 1 if a step failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with squad/, nq/ and text/")
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    parser.add_argument("--config", default="wire-several.yaml", help="of the runs, in configs/sandbox")
    parser.add_argument("--start", default="sandbox", help="the wire that is trained on")
    parser.add_argument("--runs", type=int, default=3, help="runs side by side, whose mean is taken")
    parser.add_argument("--minutes", type=float, default=10.4, help="of each run")
    parser.add_argument("--join-minutes", type=float, default=10.3, help="of the late joiner")
    parser.add_argument("--passages", type=int, default=82_000, help="passages that are asked about")
    parser.add_argument("--skip", type=int, default=16_600, help="passages left out: those that people asked about")
    parser.add_argument("--dev", type=int, default=1500, help="questions kept aside that the mean is chosen by")
    parser.add_argument("--n", type=int, default=0, help="questions that are measured, the first ones (0: all)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of all training runs")
    parser.add_argument("--asker", nargs="*", default=[], metavar="KEY=VALUE", help="of the asker's config")
    parser.add_argument("--until", help="the last step")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    given = parser.parse_args(argv)
    given.out = given.out.resolve()
    gpus = [] if given.dry_run else processes.visible_gpus()
    given.data = given.out / "data" if given.dry_run else view(given.data_dir, given.out)
    for step in steps(given, len(gpus)):
        if given.dry_run:
            print(f"# {step.name}", *map(shlex.join, step.commands), sep="\n")
        elif step.made and step.finished():
            print(f"{step.name}: there", flush=True)
        else:
            print(f"{step.name}: {len(step.commands)} side by side", flush=True)
            if failed := run(step, given.out, gpus):
                print(f"error: {step.name}: {'; '.join(failed)}", file=sys.stderr)
                return 1
        if step.name == given.until:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
