"""``train``: from a config to a trained wire. Resumable at every checkpoint, exact on the same machine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed

from latentwire.config import config_hash, encode, load, save
from latentwire.environment import environment
from latentwire.errors import UserError
from latentwire.training.aside import score
from latentwire.training.check import check
from latentwire.training.config import TrainConfig
from latentwire.training.loop import Loop
from latentwire.training.setup import prepare

WAIT = timedelta(hours=12)
"""How long processes wait for one another before they give up."""
ENVIRONMENT = "environment.jsonl"
"""A line for each time that a run was begun or gone on with: when, on what device, by how many processes, versions."""


def train(
    config: str | Path | TrainConfig,
    overrides: Iterable[str] = (),
    out: Path | None = None,
    data_dir: str | None = None,
    resume: bool = True,
    dry_run: bool = False,
) -> Path:
    """Train a wire and write it to ``out/wire`` (and the best by the smoothed metric to ``out/best``).

    A run that was killed goes on from its last checkpoint when called again with the same config and ``out``.
    """
    if not isinstance(config, TrainConfig):
        config = load(config, TrainConfig, overrides)
    name = config_hash(config)
    out = out or Path("runs") / f"train-{name}"
    check(config)
    if dry_run:
        print(json.dumps({"config": encode(config), "hash": name, "out": str(out)}, indent=2, default=str))
        return out
    out.mkdir(parents=True, exist_ok=True)
    before = load(out / "config.yaml", TrainConfig) if (out / "config.yaml").is_file() and resume else config
    # checkpoints are whole: a run may be split over processes from any of them on
    if config_hash(replace(before, shard=config.shard)) != name:
        raise UserError(f"{out} holds a run of another config; choose another --out, or --no-resume to start over")
    save(config, out / "config.yaml")
    set_seed(config.seed)
    on_gpu = torch.cuda.is_available() and config.device != "cpu"
    # others wait while the first process tokenises, evaluates and answers: for large receivers longer than ten minutes
    patient = InitProcessGroupKwargs(timeout=WAIT)
    accelerator = Accelerator(mixed_precision="bf16" if on_gpu else "no", cpu=not on_gpu, kwargs_handlers=[patient])
    if accelerator.is_main_process:
        _begun(out / ENVIRONMENT, accelerator)
    run = prepare(config, data_dir, accelerator)
    loop = Loop(config, run, accelerator, out)
    loop.go(resume)
    if config.score and run.aside:
        with loop.whole(accelerator.device):
            if accelerator.is_main_process:
                score(run, config.seed, config.score, out / "dev")
    return out / "wire"


def _begun(path: Path, accelerator: Accelerator) -> None:
    line = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    line |= environment(accelerator.device, accelerator.num_processes)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
