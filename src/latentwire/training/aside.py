"""The slice kept aside: the loss on it while training goes on, the best wire by it, and answers at a stage's end."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import torch
from accelerate import Accelerator

from latentwire.training.checkpoint import Progress
from latentwire.training.config import Draw, TrainConfig
from latentwire.training.setup import Run


@contextmanager
def at_rest(run: Run) -> Generator[None]:
    """The wire as it is used, not as it is trained: nothing compiled for a step's shapes, nothing dropped."""
    run.compile(False)
    run.wire.eval()
    try:
        yield
    finally:
        run.wire.train()
        run.compile()


@torch.no_grad()
def evaluate(
    run: Run,
    config: TrainConfig,
    draws: list[Draw],
    done: float,
    progress: Progress,
    accelerator: Accelerator,
    out: Path,
) -> dict[str, Any]:
    """Losses on the slice kept aside (there is one), as a line of metrics.jsonl.

    The best wire is chosen by their smoothed mean and written to ``out/best``: one lucky batch chooses nothing.
    """
    row: dict[str, Any] = {"step": progress.step, "source": "dev"}
    losses = []
    with at_rest(run):
        for draw in draws:
            generator = torch.Generator(accelerator.device).manual_seed(config.seed)
            dev = run.stores["dev-prompt" if draw.mode == "prompt" else "dev"]
            assert dev is not None
            batch = dev.draw(0, 0, generator)
            with accelerator.autocast():
                ratio, slots, mode, *more = draw.how
                _, metrics = run.step(batch, "questions", ratio, slots, mode, done, generator, *more)
            row |= {f"{key}@{draw.name}": round(float(value), 5) for key, value in metrics.items()}
            losses += [float(metrics[f"{name}/answer"]) for name in run.names if f"{name}/answer" in metrics]
    if losses and math.isfinite(sum(losses)):
        value = sum(losses) / len(losses)
        keep = 0.5 ** (1 / config.best_over)
        progress.smoothed = value if progress.smoothed is None else keep * progress.smoothed + (1 - keep) * value
        if progress.best is None or progress.smoothed < progress.best:
            progress.best = progress.smoothed
            run.wire.save_pretrained(out / "best")
        row |= {"answer": round(value, 5), "smoothed": round(progress.smoothed, 5)}
    return row


def score(run: Run, seed: int, count: int, out: Path) -> None:
    """Answer questions of the slice kept aside with the wire as it is: figures for choices, not for reports."""
    from latentwire.evaluation.runner import evaluate as answer_all
    from latentwire.evaluation.table import print_table

    chosen = Random(seed).sample(run.aside, min(count, len(run.aside)))
    conditions = ("text", "none", "latents")
    wire = run.wire
    print_table(answer_all(wire, chosen, ratios=wire.ratios, conditions=conditions, receivers=run.names, out=out))
