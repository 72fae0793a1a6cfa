"""``train``: from a config to a trained wire. Resumable at every checkpoint, exact on the same machine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from latentwire.config import config_hash, encode, load, save
from latentwire.errors import UserError
from latentwire.objectives.combination import check as check_objectives
from latentwire.training.config import TrainConfig
from latentwire.training.loop import Loop
from latentwire.training.optim import OPTIMIZERS
from latentwire.training.setup import Run, prepare
from latentwire.types import MODES


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
    if (out / "config.yaml").is_file() and resume and config_hash(load(out / "config.yaml", TrainConfig)) != name:
        raise UserError(f"{out} holds a run of another config; choose another --out, or --no-resume to start over")
    save(config, out / "config.yaml")
    set_seed(config.seed)
    on_gpu = torch.cuda.is_available() and config.device != "cpu"
    accelerator = Accelerator(mixed_precision="bf16" if on_gpu else "no", cpu=not on_gpu)
    run = prepare(config, data_dir, accelerator)
    Loop(config, run, accelerator, out).go(resume)
    if config.score and run.aside and accelerator.is_main_process:
        score(run, config, out / "dev")
    return out / "wire"


def score(run: Run, config: TrainConfig, out: Path) -> None:
    """Answer questions of the slice kept aside with the finished wire: figures for choices, not for reports."""
    from latentwire.evaluation.runner import evaluate
    from latentwire.evaluation.table import print_table

    chosen = Random(config.seed).sample(run.aside, min(config.score, len(run.aside)))
    conditions = ("text", "none", "latents")
    print_table(evaluate(run.wire, chosen, ratios=run.wire.ratios, conditions=conditions, receivers=run.names, out=out))


def check(config: TrainConfig) -> None:
    """Refuse what cannot work before anything is loaded."""
    if not config.objectives:
        raise UserError("no objectives; name at least one under objectives (for example answer: {type: answer})")
    check_objectives(config.objectives)
    if bool(config.steps) == bool(config.minutes):
        raise UserError("give either steps or minutes, and not both")
    if config.optimizer not in OPTIMIZERS:
        raise UserError(f"optimizer is one of {', '.join(OPTIMIZERS)}, not {config.optimizer!r}")
    if unknown := [name for name in config.links if not config.start and name not in config.wire.links]:
        raise UserError(f"links names {unknown[0]!r}, wire.links has: {', '.join(config.wire.links)}")
    if config.join and config.links:
        raise UserError("links and join exclude each other: what joins is all that learns")
    if config.join and not config.start:
        raise UserError("join needs start: the trained wire that the new link joins")
    ratios = [draw.ratio for draw in config.draws]
    if odd := [ratio for ratio in ratios if not config.start and ratio not in config.wire.encoder.ratios]:
        known = ", ".join(map(str, config.wire.encoder.ratios))
        raise UserError(f"draws names ratio {odd[0]}, the encoder is made for {known}; add it to wire.encoder.ratios")
    if any(draw.mode not in MODES for draw in config.draws):
        raise UserError(f"the mode of a draw is {' or '.join(MODES)}")
    if any(draw.mode == "prompt" for draw in config.draws) and not config.corpus.prompts:
        raise UserError("a draw of prompt mode needs questions to encode: set corpus.prompts, for example to 80000")
    if config.draws and not all(draw.share > 0 for draw in config.draws):
        raise UserError("the share of a draw is a number above 0")
    if not config.stages or config.stages[-1].until < 1.0:
        raise UserError("the last stage must last until 1.0")
