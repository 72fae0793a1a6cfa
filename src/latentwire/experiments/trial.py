"""One run from its config to its figures: trained, then asked. Also the process that does it (``work``).

What is finished is not done again: a trained wire is only asked, and rows that were measured are kept.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from random import Random
from typing import Any

import torch

from latentwire.config import decode, load
from latentwire.data.rows import read_examples
from latentwire.data.squad import shipped_valid
from latentwire.errors import UserError
from latentwire.evaluation.runner import RESULTS, evaluate
from latentwire.experiments.settings import EvaluateConfig
from latentwire.training.config import TrainConfig
from latentwire.training.run import train
from latentwire.training.sources import read_questions
from latentwire.training.watch import EVENTS, Collapsed, still_seen
from latentwire.types import Example
from latentwire.wire import Wire

JOB, RESULT, TRAINED = "job.json", "result.json", "trained.json"
"""What a run's process is told, what it found, and what is known when its training is over."""


def trial(config: TrainConfig, folder: Path, data_dir: str | None, asked: EvaluateConfig) -> dict[str, Any]:
    """Train into ``folder/run`` and ask into ``folder/eval``.

    Returns ``steps``, ``seconds`` (of ``train`` and ``evaluate``), ``parameters`` by part of the wire, ``events`` (what
    the collapse watch said), ``ended`` (what it still saw at the end, by receiver), ``stopped`` (its message where it
    ended the run, else None; such a run is not asked), ``rows`` and where they were measured.
    """
    done = trained(config, folder, data_dir)
    found: dict[str, Any] = {
        **done,
        "seconds": {"train": done["seconds"], "evaluate": 0.0},
        "parameters": {},
        "rows": [],
    }
    if done["stopped"]:
        return found
    began = time.monotonic()
    wire = opened(config, folder / "run" / "wire")
    measured = ask(wire, config, data_dir, asked, folder / "eval")
    parts = {"encoder": wire.encoder, **{f"link {name}": wire.links[name] for name in wire.receivers}}
    found["parameters"] = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    found["seconds"]["evaluate"] = round(time.monotonic() - began, 1)
    return found | {key: measured[key] for key in ("rows", "data", "seed", "versions", "device")}


def trained(config: TrainConfig, folder: Path, data_dir: str | None) -> dict[str, Any]:
    """Train, or go on, unless that is over; the part of :func:`trial`'s result that is known then."""
    if (folder / TRAINED).is_file():
        return json.loads((folder / TRAINED).read_text(encoding="utf-8"))
    run, stopped = folder / "run", None
    try:
        train(config, out=run, data_dir=data_dir)
    except Collapsed as message:
        stopped = str(message)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    events = [line for line in lines if line.get("event") in EVENTS]
    ended = {}
    for event in events if stopped else []:
        ended.setdefault(event["receiver"], []).append(event["event"])
    kept = sorted((run / "checkpoints").glob("step-*/progress.json"))
    progress = json.loads(kept[-1].read_text(encoding="utf-8")) if kept else {}
    if not stopped:
        ended = still_seen(progress["watch"], config.watch.patience)
    found = {
        # one that was stopped went on behind its last checkpoint
        "steps": lines[-1]["step"] if stopped else progress["step"],
        "seconds": round(max(line.get("seconds", 0.0) for line in lines) if stopped else progress["seconds"], 1),
        "events": events,
        "ended": ended,
        "stopped": stopped,
    }
    write(folder / TRAINED, found)
    return found


def opened(config: TrainConfig, where: Path) -> Wire:
    """A run's wire on the device that the run was made for."""
    on_gpu = torch.cuda.is_available() and config.device != "cpu"
    return Wire.from_pretrained(where, device="cuda" if on_gpu else "cpu")


def ask(wire: Wire, config: TrainConfig, data_dir: str | None, asked: EvaluateConfig, out: Path) -> dict[str, Any]:
    """What :func:`latentwire.evaluation.runner.evaluate` finds of a run's wire."""
    return evaluate(
        wire,
        questions(config, data_dir, asked),
        ratios=asked.ratios or tuple(wire.ratios),
        bits=asked.bits,
        conditions=asked.conditions,
        receivers=asked.receivers or None,
        mode=asked.mode,
        slots=asked.slots,
        seed=asked.seed,
        out=out,
    )


def questions(config: TrainConfig, data_dir: str | None, asked: EvaluateConfig) -> list[Example]:
    """The questions that a run answers. UserError: there are none aside, or the file holds none."""
    if asked.questions == "aside":
        # what is made or written is only trained on
        people = replace(config, corpus=replace(config.corpus, made=0, written=0, crops=0))
        rows = read_questions(people, data_dir)[1]
        if not rows:
            raise UserError("none of the run's questions are kept aside; set evaluate.questions to valid, or to a file")
    else:
        rows = read_examples(shipped_valid() if asked.questions == "valid" else asked.questions)
    return Random(asked.seed).sample(rows, asked.n) if 0 < asked.n < len(rows) else rows


def answer_valid(run: Path, n: int) -> Path | None:
    """Answer ``n`` (0: all) of the questions that come along with the wire of a finished run, from text, nothing and
    latents, into its folder ``valid``; prints the table, and returns where it is.

    None in all but the first process of several that trained together.
    """
    from latentwire.evaluation.table import print_table

    if int(os.environ.get("RANK", "0")):
        return None
    config = load(run / "config.yaml", TrainConfig)
    asked = EvaluateConfig(questions="valid", n=n, conditions=["text", "none", "latents"])
    print_table(ask(opened(config, run / "wire"), config, None, asked, run / "valid"))
    return run / "valid" / RESULTS


def work(folder: Path) -> None:
    """The run that ``folder/job.json`` describes, in this process; writes ``folder/result.json``.

    Its checkpoints go when it is finished: nothing goes on from them any more, and they are most of what it holds.
    """
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    asked = decode(EvaluateConfig, job["evaluate"])
    found = trial(decode(TrainConfig, job["config"]), folder, job["data_dir"], asked)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write(folder / RESULT, {"evaluation": asked.hash, **found, "time": now})
    shutil.rmtree(folder / "run" / "checkpoints", ignore_errors=True)


def write(path: Path, found: dict[str, Any]) -> None:
    """A JSON file that is there whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")  # several processes may have the same figures to write
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def main(argv: list[str]) -> int:
    """The process of one run; exit code 2 for what can be put right, said in one line."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        work(Path(argv[0]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
