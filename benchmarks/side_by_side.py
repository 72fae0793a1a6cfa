"""Training runs side by side, each in a process and a folder of its own: trained, then asked questions kept aside.

A finished run is not repeated, one that was stopped goes on, one that fails is reported and the others go on.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from itertools import cycle
from pathlib import Path
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


def run_one(folder: Path, job: Job, gpu: int | None = None) -> str | None:
    """Run a job unless it is finished; returns why it failed."""
    if (folder / "result.json").is_file():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(job, indent=1))
    place = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)}
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
    import torch

    gpus = cycle(range(torch.cuda.device_count()) or [None])
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(parallel) as pool:
        running = {pool.submit(run_one, folder, job, next(gpus)): (folder, job) for folder, job in todo}
        for number, done in enumerate(as_completed(running), 1):
            folder, job = running[done]
            if why := done.result():
                failed[job["name"]] = why
            print(
                f"{number}/{len(todo)} {job['name']}: {why or 'finished'} ({folder.name})", file=sys.stderr, flush=True
            )
            after(failed)
    return failed


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


if __name__ == "__main__":
    work(Path(sys.argv[1]))
