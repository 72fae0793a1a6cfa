"""The best mean of wires from one start: ``python -m latentwire.training.soup OUT WIRE WIRE … --config CONFIG``.

Each wire is judged on the slice kept aside of the config's questions, at all its draws; then, from the best one on, a
wire is taken into the mean if that makes it better (greedy soup, Wortsman et al. 2022). What was judged is written
beside the mean, a line for each.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from latentwire.config import load
from latentwire.errors import UserError
from latentwire.training.average import average
from latentwire.training.config import Draw, TrainConfig
from latentwire.training.setup import Run, assemble, make_wire, tokenise
from latentwire.training.sources import read_questions
from latentwire.types import MODES
from latentwire.wire import Wire

JUDGED = "judged.jsonl"


class Judge:
    """The slice kept aside of a config, read by one wire after another.

    dev: questions at most. UserError: the config's questions leave none aside.
    """

    def __init__(self, config: TrainConfig, where: str | Path, data: str | None, dev: int) -> None:
        on_gpu = torch.cuda.is_available() and config.device != "cpu"
        self.accelerator = Accelerator(mixed_precision="bf16" if on_gpu else "no", cpu=not on_gpu)
        people = replace(config.corpus, made=0, written=0, crops=0, dev=dev)
        self.config = replace(config, start=str(where), grow=[], join=[], corpus=people)
        aside = read_questions(self.config, data)[1]
        if not aside:
            raise UserError("none of the config's questions are kept aside, so there is nothing to judge wires by")
        wire, names = make_wire(self.config, [e.context for e in aside[:4]], self.accelerator.device)
        prompts = {name: wire.frozen[name].prompt for name in names}
        # what a run has in its cache is found there
        stores = tokenise(replace(self.config, corpus=replace(config.corpus, dev=dev)), wire, prompts, [], [], aside)
        self.run: Run = assemble(self.config, wire, names, stores, self.accelerator.device)
        wire.eval()

    @torch.no_grad()
    def losses(self, state: dict[str, Tensor]) -> dict[str, float]:
        """Metrics at every draw, named ``llama/answer@4x`` and so on, of a wire with these weights."""
        run, found = self.run, {}
        run.wire.load_state_dict(state, strict=True)
        for draw in self.config.draws or [Draw(ratio) for ratio in run.wire.ratios]:
            batches = run.stores["dev" if draw.mode == MODES[0] else "dev-prompt"]
            assert batches is not None
            generator = torch.Generator(self.accelerator.device).manual_seed(self.config.seed)
            batch = batches.draw(0, 0, generator)
            with self.accelerator.autocast():
                ratio, slots, mode, *more = draw.how
                _, metrics = run.step(batch, "questions", ratio, slots, mode, 1.0, generator, *more)
            found |= {f"{key}@{draw.name}": round(float(value), 5) for key, value in metrics.items()}
        return found

    def score(self, found: dict[str, float]) -> float:
        """The mean answer loss over receivers and draws; less is better."""
        own = [value for key, value in found.items() if key.split("@")[0] in {f"{n}/answer" for n in self.run.names}]
        return sum(own) / len(own)


def greedy(wires: list[str], judge: Judge) -> tuple[list[str], list[dict[str, Any]]]:
    """The wires whose mean is best by the judge, the best single one first, and a row for all that was judged."""
    rows: list[dict[str, Any]] = []

    def judged(names: list[str]) -> float:
        found = judge.losses(mean_of(names, judge.run.names, judge.accelerator.device).state_dict())
        rows.append({"wires": names, "score": round(judge.score(found), 5), **found})
        print(" + ".join(names), rows[-1]["score"], flush=True)
        return rows[-1]["score"]

    alone = sorted(wires, key=lambda name: judged([name]))
    chosen, best = [alone[0]], min(row["score"] for row in rows)
    for name in alone[1:]:
        if (score := judged([*chosen, name])) < best:
            chosen, best = [*chosen, name], score
    return chosen, rows


def mean_of(wires: list[str], receivers: list[str], device: torch.device | str = "cpu") -> Wire:
    """The mean of one wire or more, with these receivers alone."""
    if len(wires) == 1:
        return Wire.from_pretrained(wires[0], device=device, receivers=receivers)
    return average(list(wires), device=device, receivers=receivers)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m latentwire.training.soup", description=(__doc__ or "").split(":")[0] + "."
    )
    parser.add_argument("out", type=Path, help="directory to write the mean to")
    parser.add_argument("wires", nargs="+", metavar="WIRE", help="directories of wires, at least two, or `sandbox`")
    parser.add_argument("--config", required=True, help="a run's config: questions kept aside, and draws")
    parser.add_argument("--data-dir", help="folder with squad/ (else LATENTWIRE_DATA)")
    parser.add_argument("--dev", type=int, default=1500, help="questions kept aside at most")
    given = parser.parse_args(arguments)
    try:
        if len(given.wires) < 2:
            raise UserError("a mean is of at least two wires")
        judge = Judge(load(given.config, TrainConfig), given.wires[0], given.data_dir, given.dev)
        chosen, rows = greedy(given.wires, judge)
        mean = mean_of(chosen, judge.run.names)
        mean.save_pretrained(given.out)
        (given.out / JUDGED).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"{given.out}: {' + '.join(chosen)}")


if __name__ == "__main__":
    main()
