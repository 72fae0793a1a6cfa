"""Training runs side by side, each in a process and a folder of its own: trained, then asked questions kept aside.

A finished run is not repeated, one that was stopped goes on, one that fails is reported and the others go on. Runs that
the file of figures holds already, of the same budget, are not repeated either (``--again``: they are).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentwire.experiments import processes

Job = dict[str, Any]
"""name, config (a training config's tree), n (questions), data_dir, facts (what goes into the result as it is),
references (whether full text and no context are measured too), ratios and slots (of the evaluation), drawn (the seed
that draws the questions, if not the run's), mode (of the evaluation)."""

BUDGET: dict[str, dict[str, Any]] = {
    "--steps": {"type": int, "help": "of each run (1500 if no minutes are given)"},
    "--minutes": {"type": float, "help": "of each run, whatever runs beside it"},
    "--passages": {"type": int, "default": 64, "help": "of a step"},
    "--windows": {"type": int, "help": "passages of text (as the shipped wire's config)"},
    "--made": {"type": int, "help": "passages with made questions (likewise)"},
}
"""Options of the command that say how much each run gets."""


def work(folder: Path) -> None:
    """One run in this process: train, answer, and write ``result.json``."""
    from latentwire.config import decode
    from latentwire.errors import UserError
    from latentwire.experiments.settings import EvaluateConfig
    from latentwire.experiments.trial import trial, write
    from latentwire.training.config import TrainConfig

    job = json.loads((folder / "job.json").read_text())
    run = decode(TrainConfig, job["config"])
    asked = EvaluateConfig(n=job["n"], ratios=job.get("ratios") or [], slots=job.get("slots"))
    asked.seed, asked.mode = job.get("drawn", run.seed), job.get("mode", asked.mode)
    asked.conditions = ["text", "none", "latents"] if job["references"] else ["latents"]
    found = trial(run, folder, job["data_dir"], asked)
    if found["stopped"]:
        raise UserError(found["stopped"])
    kept = ("steps", "parameters", "rows", "data", "seed", "versions", "device")
    result = {**job["facts"], "seconds": round(found["seconds"]["train"], 1)} | {key: found[key] for key in kept}
    write(folder / "result.json", result)


def run_one(folder: Path, job: Job, gpu: str | None = None) -> str | None:
    """Run a job unless it is finished; returns why it failed."""
    if (folder / "result.json").is_file():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(job, indent=1))
    with (folder / "log.txt").open("w") as log:
        code = subprocess.run(
            [sys.executable, __file__, str(folder)], stdout=log, stderr=subprocess.STDOUT, check=False,
            env=processes.environment(gpu),
        ).returncode  # fmt: skip
    return None if code == 0 else processes.reason(folder / "log.txt", code)


def run_all(todo: list[tuple[Path, Job]], parallel: int, after: Callable[[dict[str, str]], None]) -> dict[str, str]:
    """All jobs, ``parallel`` at a time, spread over the GPUs there are; returns why some failed, by name.

    after: called when a job is over, with what failed so far.
    """
    failed: dict[str, str] = {}
    done = 0

    def over(item: tuple[Path, Job], why: str | None) -> None:
        nonlocal done
        folder, job = item
        done += 1
        if why:
            failed[job["name"]] = why
        print(f"{done}/{len(todo)} {job['name']}: {why or 'finished'} ({folder.name})", file=sys.stderr, flush=True)
        after(failed)

    processes.run_all(todo, parallel, processes.visible_gpus(), lambda item, gpu: run_one(*item, gpu), over)
    return failed


def with_retention(runs: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the rows of latents their retention; returns the rows of full text and no context, which it comes from.
    earlier: such rows, if none of the runs has any."""
    from latentwire.evaluation.metrics import retention

    references = [row for run in runs for row in run["rows"] if row["condition"] != "latents"]
    fresh = {(row["receiver"], row["condition"]) for row in references}
    references = [row for row in earlier if (row["receiver"], row["condition"]) not in fresh] + references
    score = {(row["receiver"], row["condition"]): row["f1"] for row in references}
    for run in runs:
        run["rows"] = [row for row in run["rows"] if row["condition"] == "latents"]
        for row in run["rows"]:
            none, full = (score.get((row["receiver"], name)) for name in ("none", "text"))
            kept = None if none is None or full is None else retention(row["f1"], none, full)
            row["retention"] = None if kept is None else round(kept, 4)
    return references


def command(description: str | None, name: str, n: int) -> argparse.ArgumentParser:
    """What every benchmark of this kind is told. name: of its folder and its file. n: questions."""
    parser = argparse.ArgumentParser(description=(description or "").split(":")[0])
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help="folder of the runs")
    parser.add_argument("--results", type=Path, help=f"file of figures (benchmarks/results/{name}.json)")
    parser.add_argument("--data-dir", help="folder with training data (or LATENTWIRE_DATA)")
    parser.add_argument("--parallel", type=int, default=1, help="runs side by side")
    parser.add_argument("--reader", nargs="*", default=[], metavar="NAME=DIR", help="other readers than the sandbox's")
    parser.add_argument("--n", type=int, default=n, help="questions kept aside")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="two tiny steps of each on a CPU")
    parser.add_argument("--again", action="store_true", help="also the runs that the file of figures holds already")
    parser.add_argument("--table", action="store_true", help="only write the table into its page")
    return parser


def named(run: dict[str, Any]) -> str:
    """The name of a run in a file of figures."""
    return run["name"] if "name" in run else f"{run['encoder']}+{run['injection']}"


def earlier(given: argparse.Namespace, budget: dict[str, Any] | None) -> dict[str, Any]:
    """The file of figures as it is, if it is of this budget; else one without runs (None: of no budget)."""
    none = {"runs": [], "references": [], "n": [], "device": [], "versions": {}}
    if budget is None or given.again or given.smoke or not given.results.is_file():
        return none
    found = json.loads(given.results.read_text(encoding="utf-8"))
    apart = [{key: value for key, value in each.items() if key != "parallel"} for each in (found["budget"], budget)]
    alike = apart[0] == apart[1] and found["n"] == [given.n] and found["seed"] == given.seed and not found["smoke"]
    return found if alike else none


def left(
    todo: list[tuple[Path, Job]], given: argparse.Namespace, budget: dict[str, Any] | None
) -> list[tuple[Path, Job]]:
    """Those runs that the file of figures does not hold."""
    there = set(map(named, earlier(given, budget)["runs"]))
    return [run for run in todo if run[1]["name"] not in there]


def measured(
    todo: list[tuple[Path, Job]], given: argparse.Namespace, budget: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What the files of all benchmarks of this kind hold: the runs that are finished, and what they ran on. budget: the
    file's runs of the same one stay in it."""
    runs = [json.loads(path.read_text()) for folder, _ in todo if (path := folder / "result.json").is_file()]
    before, names = earlier(given, budget), [job["name"] for _, job in todo]
    references = with_retention(runs, before["references"])
    facts = {key: [run.pop(key) for run in runs] for key in ("data", "seed", "versions", "device")}
    fresh = set(map(named, runs))
    runs += [run for run in before["runs"] if named(run) in names and named(run) not in fresh]
    return {
        "smoke": given.smoke,
        "n": sorted({data["n"] for data in facts["data"]} | set(before["n"])),
        "seed": given.seed,
        "versions": facts["versions"][-1] if facts["versions"] else before["versions"],
        "device": sorted({*facts["device"], *before["device"]}),
        "references": references,
        "runs": sorted(runs, key=lambda run: names.index(named(run))),
    }


def finish(
    given: argparse.Namespace,
    chosen: list[tuple[Path, Job]],
    budget: dict[str, Any] | None,
    gathered: Callable[[dict[str, str]], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> int:
    """The end of each command: run what the file of figures does not hold yet, write the file whenever a run is over,
    print the table. gathered: the file's content, given why some runs failed. Returns the exit code, 1 if one did."""
    from latentwire.experiments.trial import write as write_json

    def write(failed: dict[str, str]) -> None:
        given.results.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.results, gathered(failed))

    failed = run_all(left(chosen, given, budget), given.parallel, write)
    write(failed)
    print(table(json.loads(given.results.read_text(encoding="utf-8"))))
    return int(bool(failed))


if __name__ == "__main__":
    work(Path(sys.argv[1]))
