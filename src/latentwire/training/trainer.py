"""One optimiser step: which passages, what it learns from, forward and backward, the update."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator

from latentwire.errors import UserError
from latentwire.receivers.capture import on_stream
from latentwire.training.batches import Batch, Batches
from latentwire.training.checkpoint import Progress
from latentwire.training.config import Stage, TrainConfig
from latentwire.training.diagnostics import Diagnostics
from latentwire.training.graphs import Graphs
from latentwire.training.journal import Journal
from latentwire.training.mixing import mixed
from latentwire.training.optim import MuonAdamW, total_norm
from latentwire.training.passes import Passes
from latentwire.training.schedules import Schedules
from latentwire.training.setup import Run
from latentwire.training.shard import Shards
from latentwire.training.stages import Learning
from latentwire.training.together import Together
from latentwire.training.work import Work


class Trainer:
    """Parameters, optimiser and schedules of a run. ``advance`` makes one step of it.

    journal: where a step may note something; None until the run has one.
    """

    def __init__(self, config: TrainConfig, run: Run, accelerator: Accelerator) -> None:
        self.config, self.run, self.accelerator = config, run, accelerator
        self.together = Together(accelerator.process_index, accelerator.num_processes)
        self.together.start_alike(run.step)
        self.shards = Shards(run.wire, self.together, config.shard)
        self.learning = Learning(run.wire, run.step.heads, run.names, config.stages)
        self.parameters = self.learning.parameters
        self.optimizer = MuonAdamW(
            self.learning.groups(run.step, config.rate, config.encoder_rate, config.optimizer == "muon"),
            betas=config.betas, weight_decay=config.weight_decay, fused=accelerator.device.type == "cuda",
        )  # fmt: skip
        every = [*config.draws, *(draw for stage in config.stages for draw in stage.draws)]
        books = run.wire.codes if any(draw.codes for draw in every) else None
        if self.together.world > 1 and books is not None and books.moving:
            raise UserError(
                "books of codes learn from what one process has seen; take codes on a grid (codes: {type: grid}), or "
                "leave the draws of codes to a run of one process"
            )
        if self.together.world > 1 and len(run.devices) > 1:
            raise UserError(
                "several processes need their receivers beside the wire; leave device_map out, or start one process"
            )
        self.progress = Progress(total=config.steps)
        self.schedules = Schedules(config, run)
        graphs = self._graphs() if config.graphs else None
        self.passes = Passes(
            run.step, self.parameters, accelerator.autocast, graphs, config.accumulate, self.event, self.shards.on
        )
        self.diagnostics = Diagnostics(config.diagnostics, run, self.learning.named, accelerator.autocast)
        self.skipped = torch.zeros((), dtype=torch.int64, device=accelerator.device)
        self.journal: Journal | None = None
        self.drawn = self.schedules.draws[0]

    def _graphs(self) -> Graphs | None:
        # a recording is of one device
        if self.accelerator.device.type != "cuda" or not self.run.compiled or len(self.run.devices) > 1:
            return None
        return Graphs(self.run.step, self.parameters, self.accelerator.autocast)

    def begin(self, stage: Stage) -> None:
        """Let learn what learns in this stage."""
        self.learning.begin(stage)
        self.schedules.names = self.learning.readers(stage)
        self.passes.forget()

    def work(self, source: str, mode: str, number: int, generator: torch.Generator) -> Work:
        """What the ``number``-th step of its kind computes on, for the receivers of this step."""
        store: Batches | None = self.run.stores[mode if mode == "prompt" else source]
        assert store is not None
        # processes take turns in one order of the passages
        batch = store.draw(number * self.together.world + self.together.rank, self.config.seed, generator)
        names = self.schedules.receivers(self.progress)
        batch = Batch(batch.source, {name: batch.read[name] for name in names})
        done, factors = self.schedules.done(self.progress), self.schedules.weights(self.progress)
        return self.run.step.cut(batch, source, done, generator, factors)

    def advance(self) -> tuple[str, torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """One optimiser step; metrics stay on the device (reading them would make the GPU wait)."""
        config, progress, plans = self.config, self.progress, self.schedules
        draw = self.drawn = plans.draw(progress)
        source = "questions" if draw.mode == "prompt" else plans.source(progress)
        luck = (config.seed + 101 * self.together.rank) * 1_000_003 + progress.step
        # dropout draws from here: a resumed run goes on as it would have
        torch.manual_seed(luck)
        generator = torch.Generator(self.accelerator.device).manual_seed(luck)
        number = progress.text_steps if source == "text" else progress.question_steps
        work = self.work(source, draw.mode, number, generator)
        text, own = plans.text_share(progress), plans.own_share(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * plans.rate(progress)
        kind = f"{source} {draw.name}"
        read = mixed(work, source, text, config.text_warmup.beside, own, generator)
        loss, metrics = self.passes.run(kind, read, draw)
        self.together.average(self.parameters)
        looking = bool(work.read) and self.diagnostics.due(progress.step + 1)
        features = self.diagnostics.features() if looking else {}
        norm = total_norm([p.grad for p in self.parameters if p.grad is not None])
        norm = norm.to(self.skipped.device)  # it is where the first gradient is
        self.skipped += ~self.optimizer.clip(norm, config.clip)
        if looking:
            with self.shards.whole(self.accelerator.device):
                if self.together.main:
                    self.diagnose(kind, source, work, metrics, features)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        # once a step, however many parts and attempts it took
        gates = self.run.step.gates
        metrics = metrics | gates.look(self.together.mean(gates.measured(metrics)))
        progress.step += 1
        if source == "text":
            progress.text_steps += 1
        else:
            progress.question_steps += 1
        return source, loss.detach(), metrics, norm

    def diagnose(
        self, kind: str, source: str, work: Work, metrics: dict[str, torch.Tensor], features: dict[str, torch.Tensor]
    ) -> None:
        """A line of diagnostics.jsonl of this step, on the weights it was made with."""
        assert self.journal is not None
        asked = work if source == "questions" else None
        if asked is None and self.run.stores["questions"] is not None:
            generator = torch.Generator(self.accelerator.device).manual_seed(self.progress.step)
            asked = self.work("questions", self.drawn.mode, self.progress.question_steps, generator)
        parts = [None if one is None else self.passes.first_part(kind, one) for one in (work, asked)]
        assert parts[0] is not None
        step = self.progress.step + 1
        # on the stream of the steps, which recordings are made on (see graphs.py)
        with on_stream(self.passes.graphs.stream if self.passes.graphs else None):
            line = self.diagnostics.line(step, source, parts[0], self.drawn, metrics, features, parts[1])
        self.journal.diagnostics(line)

    def halve(self) -> dict[str, float]:
        """Halve the weights of the objectives with rows of questions; the factors that hold now. Judges are weighted by
        those of the rows they judge, and so they are halved with them; what looks at passages is left alone."""
        for name, objective in self.run.step.objectives.items():
            if objective.role == "rows" and objective.source == "questions":
                self.progress.halved[name] = 0.5 * self.progress.halved.get(name, 1.0)
        return dict(self.progress.halved)

    def event(self, event: dict[str, Any]) -> None:
        """Note what happened beside the steps."""
        self.note({"step": self.progress.step + 1, "source": "event", **event})

    def note(self, row: dict[str, Any]) -> None:
        """A line of metrics.jsonl, where the run has one."""
        if self.journal is not None:
            self.journal.metrics(row)
