"""The training loop: one optimiser step after another, and what happens between two of them."""

from __future__ import annotations

import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from latentwire.training import aside, checkpoint
from latentwire.training.bar import training_bar
from latentwire.training.checkpoint import Progress
from latentwire.training.config import Stage, TrainConfig
from latentwire.training.journal import Journal
from latentwire.training.setup import Run
from latentwire.training.stopping import Stopped, Stopping
from latentwire.training.throughput import peak_flops, speed
from latentwire.training.trainer import Trainer
from latentwire.training.watch import CollapseWatch

log = logging.getLogger(__name__)


class Loop:
    """The loop itself. ``advance`` makes one optimiser step, ``go`` all of them."""

    def __init__(self, config: TrainConfig, run: Run, accelerator: Accelerator, out: Path) -> None:
        self.config, self.run, self.accelerator, self.out = config, run, accelerator, out
        self.trainer = Trainer(config, run, accelerator)
        self.together, self.schedules = self.trainer.together, self.trainer.schedules
        self.whole = self.trainer.shards.whole
        self.watch = CollapseWatch(config.watch, config.on_collapse, self.trainer.halve)
        self.stage_number = -1
        self.told_skipped = 0
        peak = peak_flops(accelerator.device)
        self.peak = None if peak is None else peak * len(run.devices)
        self.began = time.monotonic()

    @property
    def progress(self) -> Progress:
        """Where the run stands."""
        return self.trainer.progress

    def advance(self) -> tuple[str, torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """One optimiser step, in the stage that it belongs to; see :meth:`Trainer.advance`."""
        self.enter_stage()
        return self.trainer.advance()

    # -- stages -----------------------------------------------------------------------------------------------------

    def enter_stage(self) -> None:
        """Let learn what learns in the stage of the next step; stages that lie behind leave what they leave."""
        number = self.schedules.stage_number(self.progress)
        if number == self.stage_number:
            return
        self.leave_stages(number)
        self.stage_number = number
        self.trainer.begin(self.config.stages[number])

    def leave_stages(self, until: int) -> None:
        """Wire and answers of the stages before ``until`` that were not left yet, of those that have a name."""
        for number in range(self.progress.left, until):
            stage = self.config.stages[number]
            if stage.name:
                with self.whole(self.accelerator.device):
                    if self.together.main:
                        self.leave_stage(stage)
        self.progress.left = max(until, self.progress.left)
        self.accelerator.wait_for_everyone()

    def leave_stage(self, stage: Stage) -> None:
        """Wire and answers of a stage, by the first process."""
        where = self.out / "stages" / stage.name
        with aside.at_rest(self.run):
            self.run.wire.save_pretrained(where / "wire")
            if stage.score and self.run.aside:
                # what a killed run left there may be half done
                shutil.rmtree(where / "dev", ignore_errors=True)
                aside.score(self.run, self.config.seed, stage.score, where / "dev")

    # -- the whole --------------------------------------------------------------------------------------------------

    def go(self, resume: bool) -> None:
        """Train to the end; write the wire."""
        config, run = self.config, self.run
        self.restore(resume)
        trainer, progress = self.trainer, self.progress
        run.compile()
        marked, marked_step, before = time.monotonic(), progress.step, progress.seconds
        main = self.together.main
        with Stopping() as stopping, training_bar(config.steps or None, quiet=not main) as bar:
            while not self.finished(before):
                source, loss, metrics, norm = self.advance()
                now = time.monotonic()
                progress.seconds = before + now - self.began
                logs = progress.step % config.log_every == 0 or progress.step == progress.total
                if logs:
                    row = self.row(source, loss, metrics, norm, (now - marked) / (progress.step - marked_step))
                    trainer.note(row)
                    bar(progress.step, progress.total, row)
                    self.look(row)
                    self.plan(row["step_seconds"], before)
                evaluates = config.eval_every and progress.step % config.eval_every == 0
                saves = config.save_every and progress.step % config.save_every == 0
                if evaluates:
                    self.evaluate()
                if saves:
                    self.save()
                if self.together.any(stopping.asked, self.accelerator.device) and not self.finished(before):
                    self.stop(saved=bool(saves))
                if logs or evaluates or saves:
                    marked, marked_step = time.monotonic(), progress.step
        if progress.evaluated != progress.step:
            self.evaluate()
        self.leave_stages(len(config.stages))
        run.compile(False)
        run.wire.eval()
        self.save(last=True)  # first: from it the wire can be written again
        with self.whole():
            if main:
                run.wire.save_pretrained(self.out / "wire")
        self.accelerator.wait_for_everyone()

    def stop(self, saved: bool) -> None:
        """Leave the run where it is, saved. Raises :class:`Stopped`, or OSError if it cannot be."""
        if not saved:
            self.save(last=True)
        self.accelerator.wait_for_everyone()
        log.warning("told to stop: saved at step %d; the same command goes on from there", self.progress.step)
        raise Stopped(self.progress.step)

    def restore(self, resume: bool) -> None:
        """Go on from the newest whole checkpoint; or start over, then nothing of an earlier run may be mistaken for
        this one's."""
        folder = self.out / "checkpoints"
        trainer = self.trainer
        if resume and (found := checkpoint.load(folder, self.run.wire, trainer.optimizer, self.run.step.own())):
            trainer.progress = found
            self.watch.state, self.watch.events = found.watch, found.events
            trainer.passes.pieces = found.pieces
            trainer.skipped += found.skipped
            log.info("resuming at step %d", found.step)
        elif self.together.main:
            shutil.rmtree(folder, ignore_errors=True)
        trainer.journal = Journal(self.out, self.progress.step, self.together.main)

    def save(self, last: bool = False) -> None:
        """Write a checkpoint, which the first process does. On a full disk the run goes on without it, but for the
        last: that is an OSError."""
        trainer, progress = self.trainer, self.progress
        progress.skipped = int(trainer.skipped)
        progress.watch, progress.events, progress.pieces = self.watch.state, self.watch.events, trainer.passes.pieces
        folder, own = self.out / "checkpoints", self.run.step.own()
        moments = trainer.shards.moments(trainer.optimizer)
        with self.whole():
            if not self.together.main:
                return
            try:
                checkpoint.save(folder, self.run.wire, moments, progress, own, self.config.keep)
            except OSError as error:
                if last:
                    raise
                log.warning("step %d was not saved (%s); the run goes on", progress.step, error)

    def evaluate(self) -> None:
        """Losses on the slice kept aside, and the best wire by them; the first process's."""
        plans, progress = self.schedules, self.progress
        progress.evaluated = progress.step
        if self.run.stores["dev"] is None:
            return
        with self.whole(self.accelerator.device):
            if self.together.main:
                row = aside.evaluate(
                    self.run, self.config, plans.draws, plans.done(progress), progress, self.accelerator, self.out
                )
                self.trainer.note(row)

    def finished(self, before: float) -> bool:
        """All steps done, or the minutes over (several processes look at their steps alone, which they agree on)."""
        if self.config.minutes and self.together.world == 1:
            return before + time.monotonic() - self.began >= 60 * self.config.minutes
        return self.progress.total > 0 and self.progress.step >= self.progress.total

    def plan(self, step_seconds: float, before: float) -> None:
        """With ``minutes``, how many steps that will be at the present speed (the schedules follow)."""
        if self.config.minutes and self.progress.step >= 3 * self.config.log_every:
            left = 60 * self.config.minutes - (before + time.monotonic() - self.began)
            total = self.progress.step + max(int(left / max(step_seconds, 1e-6)), 0)
            self.progress.total = self.together.agree(total, self.accelerator.device)

    def row(
        self, source: str, loss: torch.Tensor, metrics: dict[str, torch.Tensor], norm: torch.Tensor, seconds: float
    ) -> dict[str, Any]:
        """One line of metrics.jsonl."""
        row = {
            "step": self.progress.step,
            "source": source,
            "draw": self.trainer.drawn.name,
            "loss": round(float(loss), 5),
            "gradient": round(float(norm), 4),
            "rate": round(self.schedules.rate(self.progress) * self.config.rate, 8),
            **speed(self.run, self.config, source, seconds, self.peak, self.schedules.readers(self.progress)),
            "seconds": round(self.progress.seconds, 1),
        }
        if skipped := int(self.trainer.skipped):
            row["skipped"] = skipped
            if skipped > self.told_skipped:
                log.warning("step %d: %d steps so far were not numbers and were skipped", row["step"], skipped)
            self.told_skipped = skipped
        return row | {key: round(float(value), 5) for key, value in metrics.items()}

    # -- the watch --------------------------------------------------------------------------------------------------

    def look(self, row: dict[str, Any]) -> None:
        """Give the collapse watch what it needs; what it saw goes into the log before it may stop the run."""
        found = []
        for name in self.run.names:
            if f"{name}/distinct" in row:
                seen = [row[f"{name}/{key}"] for key in ("distinct", "variety", "token")]
                seen = self.together.same([*seen, row.get(f"{name}/answer", math.nan)], self.accelerator.device)
                share, variety, token, loss = seen
                text = self.run.wire.get_receiver(name).tokenizer.decode([int(token)])
                found += self.watch.look(row["step"], name, share, text, variety, loss)
        for event in found:
            self.trainer.event(event)
        self.watch.act(found)
