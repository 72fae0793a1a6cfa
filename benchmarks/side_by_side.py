"""Training runs side by side, each in a process and a folder of its own: trained, then asked questions kept aside.

A finished run is not repeated, one that was stopped goes on, one that fails is reported and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

Job = dict[str, Any]
"""name, config (a training config's tree), n (questions), data_dir, facts (what goes into the result as it is),
references (whether full text and no context are measured too), ratios and slots (of the evaluation)."""


def work(folder: Path) -> None:
    """One run in this process: train, answer, and write ``result.json``."""
    from random import Random

    import torch

    from latentwire.config import decode
    from latentwire.evaluation.runner import evaluate
    from latentwire.training.config import TrainConfig
    from latentwire.training.run import train
    from latentwire.training.setup import read_questions
    from latentwire.wire import Wire

    job = json.loads((folder / "job.json").read_text())
    run = decode(TrainConfig, job["config"])
    where = train(run, out=folder / "run", data_dir=job["data_dir"])
    aside = read_questions(replace(run, corpus=replace(run.corpus, made=0, crops=0)), job["data_dir"])[1]
    aside = Random(run.seed).sample(aside, min(job["n"], len(aside)))
    on_gpu = torch.cuda.is_available() and run.device != "cpu"
    wire = Wire.from_pretrained(where, device="cuda" if on_gpu else "cpu")
    conditions = ["text", "none", "latents"] if job["references"] else ["latents"]
    found = evaluate(wire, aside, ratios=job.get("ratios") or wire.ratios, conditions=conditions,
                     slots=job.get("slots"), out=folder / "dev", progress=False)  # fmt: skip
    progress = json.loads(sorted((folder / "run" / "checkpoints").glob("step-*/progress.json"))[-1].read_text())
    size = {"encoder": wire.encoder, **{f"link {name}": wire.links[name] for name in wire.receivers}}
    result = {
        **job["facts"],
        "steps": progress["step"],
        "seconds": round(progress["seconds"], 1),
        "parameters": {name: sum(p.numel() for p in module.parameters()) for name, module in size.items()},
        "rows": found["rows"],
        **{key: found[key] for key in ("data", "seed", "versions", "device")},
    }
    part = folder / ".result.json"
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(folder / "result.json")


def run_one(folder: Path, job: Job, gpu: str | None = None) -> str | None:
    """Run a job unless it is finished; returns why it failed."""
    if (folder / "result.json").is_file():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(job, indent=1))
    place = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    with (folder / "log.txt").open("w") as log:
        code = subprocess.run(
            [sys.executable, __file__, str(folder)], stdout=log, stderr=subprocess.STDOUT, check=False,
            env=os.environ | place,
        ).returncode  # fmt: skip
    if code == 0:
        return None
    lines = (folder / "log.txt").read_text().strip().splitlines()
    # a path would name this machine in the results
    return re.sub(r"(?<!\w)/[\w.+/-]+", "…", lines[-1] if lines else f"exit code {code}")[:300]


def run_all(todo: list[tuple[Path, Job]], parallel: int, after: Callable[[dict[str, str]], None]) -> dict[str, str]:
    """All jobs, ``parallel`` at a time, spread over the GPUs there are; returns why some failed, by name.

    after: called when a job is over, with what failed so far.
    """
    places: Queue[str | None] = Queue()
    gpus = visible_gpus()
    for number in range(parallel):
        places.put(gpus[number % len(gpus)] if gpus else None)

    def one(folder: Path, job: Job) -> str | None:
        place = places.get()  # a run that ends makes room on its own GPU: none gets more than its share
        try:
            return run_one(folder, job, place)
        finally:
            places.put(place)

    failed: dict[str, str] = {}
    with ThreadPoolExecutor(parallel) as pool:
        running = {pool.submit(one, folder, job): (folder, job) for folder, job in todo}
        for number, done in enumerate(as_completed(running), 1):
            folder, job = running[done]
            if why := done.result():
                failed[job["name"]] = why
            told = f"{job['name']}: {why or 'finished'} ({folder.name})"
            print(f"{number}/{len(todo)} {told}", file=sys.stderr, flush=True)
            after(failed)
    return failed


def visible_gpus() -> list[str]:
    """Names of the GPUs that runs may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def with_retention(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the rows of latents their retention; returns the rows of full text and no context, which it comes from."""
    from latentwire.evaluation.metrics import retention

    references = [row for run in runs for row in run["rows"] if row["condition"] != "latents"]
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
    parser.add_argument("--table", action="store_true", help="only write the table into its page")
    return parser


def measured(todo: list[tuple[Path, Job]], given: argparse.Namespace) -> dict[str, Any]:
    """What the files of all benchmarks of this kind hold: the runs that are finished, and what they ran on."""
    runs = [json.loads(path.read_text()) for folder, _ in todo if (path := folder / "result.json").is_file()]
    references = with_retention(runs)
    facts = {key: [run.pop(key) for run in runs] for key in ("data", "seed", "versions", "device")}
    return {
        "smoke": given.smoke,
        "n": sorted({data["n"] for data in facts["data"]}),
        "seed": given.seed,
        "versions": facts["versions"][-1] if runs else {},
        "device": sorted(set(facts["device"])),
        "references": references,
        "runs": runs,
    }


if __name__ == "__main__":
    work(Path(sys.argv[1]))
