"""What a sweep will cost, as far as it can be said before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latentwire.config import config_hash, encode
from latentwire.errors import UserError
from latentwire.experiments.grid import Planned
from latentwire.shipped import resolve
from latentwire.training.config import TrainConfig
from latentwire.training.setup import make_wire
from latentwire.training.throughput import step_flops, taught
from latentwire.wire import Wire

MODELS = ("receiver", "init", "start", "anchor")
"""Keys of a config that name a model."""
SAMPLE = "The Norwegian expedition to the South Pole was led by Roald Amundsen, who arrived on 14 December 1911."


@dataclass(frozen=True)
class Cost:
    """Of all runs: minutes of training, steps, and FLOPs of these steps; flops is None where ``why`` says why not."""

    minutes: float
    steps: int
    flops: float | None
    why: str = ""

    def words(self, runs: int, workers: int, measured: list[float]) -> str:
        """One line. measured: seconds of training of runs that are finished in this sweep's folder."""
        parts = []
        if self.minutes:
            parts.append(f"{self.minutes:g} minutes of training, {self.minutes / min(workers, runs):g} on the clock")
        if self.steps:
            flops = "" if self.flops is None else f", {self.flops:.2g} FLOPs"
            parts.append(f"{self.steps:,} steps{flops}")
        text = (
            f"{runs} run{'s' if runs != 1 else ''}, {workers} at a time: {' and '.join(parts)}; evaluation not counted"
        )
        if self.why:
            text += f"; FLOPs not counted: {self.why}"
        if measured:
            text += f"; runs finished here took {sum(measured) / len(measured):.0f} s of training on average"
        return text


def cost(runs: list[Planned], times: int = 1) -> Cost:
    """The cost of all runs, each of them ``times`` times."""
    configs = [run.config for run in runs]
    minutes = times * sum(config.minutes for config in configs)
    steps = times * sum(config.steps for config in configs)
    if not steps:
        return Cost(minutes, steps, None)
    kept: dict[str, tuple[Wire, list[str]]] = {}
    try:
        flops = sum(config.steps * flops_of(config, *wire_of(config, kept)) for config in configs if config.steps)
    except (UserError, OSError) as error:
        return Cost(minutes, steps, None, " ".join(str(error).split()))
    return Cost(minutes, steps, times * flops)


def wire_of(config: TrainConfig, kept: dict[str, tuple[Wire, list[str]]]) -> tuple[Wire, list[str]]:
    """A run's wire as training begins with it, and the names of the links that learn. Nothing is fetched for it.

    kept: the wire that was made last; runs mostly share theirs. UserError: a model is not on this machine.
    """
    tree = {key: encode(config)[key] for key in ("wire", "start", "join", "links", "grow")}
    name = config_hash(tree)
    if name not in kept:
        if away := [model for model in models(tree) if not isinstance(resolve(model), Path)]:
            raise UserError(f"{away[0]} is not on this machine")
        kept.clear()
        kept[name] = make_wire(config, [SAMPLE, SAMPLE[:50]], torch.device("cpu"))
    return kept[name]


def flops_of(config: TrainConfig, wire: Wire, names: list[str]) -> float:
    """FLOPs of a step, on average over stages and receivers; :func:`latentwire.training.throughput.step_flops` says
    what is counted."""
    corpus, tokens = config.corpus, behind(config)
    objectives = [objective.build() for objective in config.objectives.values()]
    began, asking = 0.0, 0.0
    for stage in config.stages:
        asking += (stage.until - began) * stage.questions
        began = stage.until
    slots = max(-(-corpus.longest // ratio) for ratio in wire.ratios)
    shape = config.passages * config.accumulate, corpus.longest, int(corpus.longest * corpus.stretch)
    groups = [[name] for name in names] if config.receivers == "sampled" else [names]
    return sum(
        part / len(groups) * step_flops(wire, *shape, tokens[source], slots, group, taught(objectives, source))
        for source, part in (("text", 1 - asking), ("questions", asking))
        for group in groups
    )


def behind(config: TrainConfig) -> dict[str, int]:
    """Tokens of all rows behind a passage, by kind of step."""
    objectives = [objective.build() for objective in config.objectives.values()]
    texts = [one for one in objectives if one.role == "rows" and one.source == "text"]
    return {
        "text": sum(getattr(one.config, "rows", 1) for one in texts) * config.corpus.row,
        "questions": config.asks * config.corpus.asked,
    }


def models(tree: Any) -> list[str]:
    """Every model that a config's tree names."""
    found: list[str] = []
    for key, value in tree.items():
        if key == "lexicons":
            found += value
        elif isinstance(value, dict):
            found += models(value) if key != "prompt" else []  # the layout has an anchor of its own
        elif key in MODELS and isinstance(value, str) and value:
            found.append(value)
    return found
