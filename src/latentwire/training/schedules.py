"""What a step is: its rate, stage, kind, draw and receivers, all of them from config, seed and step alone.

Nothing here remembers anything, so a run that is resumed makes the same choices.
"""

from __future__ import annotations

import math

import torch

from latentwire.training.checkpoint import Progress
from latentwire.training.config import Draw, Stage, TrainConfig
from latentwire.training.setup import Run


class Schedules:
    """names: the receivers that take part now. draws: of stages that have none of their own."""

    def __init__(self, config: TrainConfig, run: Run) -> None:
        self.config, self.stores, self.names = config, run.stores, run.names
        self.draws = config.draws or [Draw(ratio) for ratio in run.wire.ratios]

    def done(self, progress: Progress) -> float:
        """Share of training done, in [0, 1]."""
        return min(progress.step / progress.total, 1.0) if progress.total else 0.0

    def stage_number(self, progress: Progress) -> int:
        """Which stage the next step is in, from 0. One that was left does not come again, though a run of so many
        minutes may find that it has more steps than it thought."""
        stages, done = self.config.stages, self.done(progress)
        number = next(number for number, stage in enumerate(stages) if done <= stage.until)
        return min(max(number, progress.left), len(stages) - 1)

    def stage(self, progress: Progress) -> Stage:
        """The stage the next step is in."""
        return self.config.stages[self.stage_number(progress)]

    def rate(self, progress: Progress) -> float:
        """Share of the peak rate: linear warm-up, then cosine to the floor; times the stage's factor."""
        c, factor = self.config, self.stage(progress).rate
        if progress.step < c.warmup:
            return factor * (progress.step + 1) / c.warmup
        return factor * (c.floor + (1 - c.floor) * 0.5 * (1 + math.cos(math.pi * self.done(progress))))

    def source(self, progress: Progress) -> str:
        """Whether the step is text or questions."""
        if self.stores["text"] is None:
            return "questions"
        if self.stores["questions"] is None:
            return "text"
        return "questions" if self.luck(0, progress) < self.stage(progress).questions else "text"

    def draw(self, progress: Progress) -> Draw:
        """Ratio and slots of the step; drawn, so that figures logged at every n-th step are of all kinds."""
        draws = self.stage(progress).draws or self.draws
        place = self.luck(1, progress) * sum(draw.share for draw in draws)
        for draw in draws:
            place -= draw.share
            if place < 0:
                return draw
        return draws[-1]

    def receivers(self, progress: Progress) -> list[str]:
        """The receivers of the step: all, one by luck, or none."""
        each = self.readers(progress)
        return each[int(self.luck(2, progress) * len(each))]

    def readers(self, progress: Progress) -> list[list[str]]:
        """The receivers of such a step, one list of which is drawn."""
        sampled = (self.stage(progress).receivers or self.config.receivers) == "sampled"
        return [[name] for name in self.names] if sampled else [self.names]

    def weights(self, progress: Progress) -> dict[str, float]:
        """Factors on the weights of objectives: the stage's, and what the collapse watch has halved."""
        factors = dict(self.stage(progress).weights)
        for name, factor in progress.halved.items():
            factors[name] = factors.get(name, 1.0) * factor
        return factors

    def text_share(self, progress: Progress) -> float:
        """Share of the passages that are given as text."""
        c = self.config.text_warmup
        return c.tail + (c.share - c.tail) * max(1 - self.done(progress) / max(c.until, 1e-9), 0.0)

    def own_share(self, progress: Progress) -> float:
        """Share of the answer tokens that are fed as the model's own."""
        c = self.config.own_tokens
        return c.share * min(max((self.done(progress) - c.begin) / max(c.end - c.begin, 1e-9), 0.0), 1.0)

    def luck(self, stream: int, progress: Progress) -> float:
        """A number in [0, 1) drawn from (seed, stream, step): the same after a restart."""
        number = self.config.seed * 7919 + stream * 1_000_003 + progress.step
        return torch.rand(1, generator=torch.Generator().manual_seed(number)).item()
