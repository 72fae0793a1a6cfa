"""The training loop: one optimiser step after another, schedules, logging, checkpoints, the best wire so far."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from latentwire.training import checkpoint
from latentwire.training.bar import training_bar
from latentwire.training.batches import Batches
from latentwire.training.checkpoint import Progress
from latentwire.training.config import Draw, Stage, TrainConfig
from latentwire.training.graphs import Graphs
from latentwire.training.optim import MuonAdamW, matrices
from latentwire.training.setup import Run
from latentwire.training.throughput import peak_flops, step_flops
from latentwire.training.together import Together
from latentwire.training.watch import CollapseWatch

log = logging.getLogger(__name__)


class Loop:
    """The loop itself: one optimiser step per call of ``advance``."""

    def __init__(self, config: TrainConfig, run: Run, accelerator: Accelerator, out: Path) -> None:
        self.config, self.run, self.accelerator, self.out = config, run, accelerator, out
        wire = run.wire
        links: dict[float, list[torch.nn.Parameter]] = {}  # by rate
        for name in run.names:
            for share, parameters in wire.links[name].by_rate().items():  # ty: ignore[not-callable]
                links.setdefault(config.rate * share, []).extend(parameters)
        encoder = [p for p in wire.encoder.parameters() if p.requires_grad]
        self.parameters = [p for parameters in links.values() for p in parameters] + encoder
        flat = matrices(wire.modules()) if config.optimizer == "muon" else set()
        groups = []
        for rate, parameters in (*links.items(), (config.encoder_rate, encoder)):
            for muon in (False, True):
                chosen = [p for p in parameters if (id(p) in flat) == muon]
                if chosen:
                    groups.append({"params": chosen, "lr": rate, "peak": rate, "muon": muon})
        self.optimizer = MuonAdamW(
            groups, betas=config.betas, weight_decay=config.weight_decay, fused=accelerator.device.type == "cuda"
        )
        self.together = Together(accelerator.process_index, accelerator.num_processes)
        self.together.start_alike(wire)
        self.graphs = self._graphs() if config.graphs else None
        self.progress = Progress(total=config.steps)
        self.watch = CollapseWatch(config.on_collapse)
        self.peak = peak_flops(accelerator.device)
        self.began = time.monotonic()
        self.draws = config.draws or [Draw(ratio) for ratio in run.wire.ratios]
        self.drawn = self.draws[0]

    def _graphs(self) -> Graphs | None:
        if self.accelerator.device.type != "cuda" or not self.run.compiled:
            return None
        return Graphs(self.run.step, self.parameters, self.accelerator.autocast)

    # -- schedules --------------------------------------------------------------------------------------------------

    def done(self) -> float:
        """Share of training done, in [0, 1]."""
        if not self.progress.total:
            return 0.0
        return min(self.progress.step / self.progress.total, 1.0)

    def rate(self) -> float:
        """Share of the peak rate: linear warm-up, then cosine to the floor."""
        c, step = self.config, self.progress.step
        if step < c.warmup:
            return (step + 1) / c.warmup
        return c.floor + (1 - c.floor) * 0.5 * (1 + math.cos(math.pi * self.done()))

    def source(self) -> str:
        """Whether this step is text or questions; drawn from (seed, step)."""
        stage: Stage = next(s for s in self.config.stages if self.done() <= s.until)
        if self.run.stores["text"] is None:
            return "questions"
        if self.run.stores["questions"] is None:
            return "text"
        return "questions" if self.luck(0) < stage.questions else "text"

    def draw(self) -> Draw:
        """Ratio and slots of this step; drawn, so that figures logged at every n-th step are of all kinds."""
        place = self.luck(1) * sum(draw.share for draw in self.draws)
        for draw in self.draws:
            place -= draw.share
            if place < 0:
                return draw
        return self.draws[-1]

    def luck(self, stream: int) -> float:
        """A number in [0, 1) drawn from (seed, stream, step): the same after a restart."""
        number = self.config.seed * 7919 + stream * 1_000_003 + self.progress.step
        return torch.rand(1, generator=torch.Generator().manual_seed(number)).item()

    # -- one step ---------------------------------------------------------------------------------------------------

    def advance(self) -> tuple[str, torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """One optimiser step; metrics stay on the device (reading them would make the GPU wait)."""
        config, progress = self.config, self.progress
        draw = self.drawn = self.draw()
        source = "questions" if draw.mode == "prompt" else self.source()
        device = self.accelerator.device
        generator = torch.Generator(device).manual_seed(
            (config.seed + 101 * self.together.rank) * 1_000_003 + progress.step
        )
        store: Batches | None = self.run.stores[draw.mode if draw.mode == "prompt" else source]
        assert store is not None
        drawn = progress.text_steps if source == "text" else progress.question_steps
        # processes take turns in one order of the passages
        batch = store.draw(drawn * self.together.world + self.together.rank, config.seed, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.rate()
        if self.graphs is not None:
            work = self.run.step.cut(batch, source, self.done(), generator)
            loss, metrics = self.graphs.run(work, draw.ratio, draw.slots, draw.mode)
        else:
            with self.accelerator.autocast():
                loss, metrics = self.run.step(batch, source, draw.ratio, draw.slots, draw.mode, self.done(), generator)
            loss.backward()
        self.together.average(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, config.clip, error_if_nonfinite=False)
        # a step that is not a number must not reach the weights; zeroed gradients only let the moments decay
        good = torch.isfinite(norm)
        for p in self.parameters:
            if p.grad is not None:
                p.grad = torch.where(good, p.grad, 0.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        if source == "text":
            progress.text_steps += 1
        else:
            progress.question_steps += 1
        return source, loss.detach(), metrics, norm

    # -- the whole ----------------------------------------------------------------------------------------------------

    def go(self, resume: bool) -> None:
        """Train to the end; write the wire."""
        config, run, progress = self.config, self.run, self.progress
        folder = self.out / "checkpoints"
        if resume and (found := checkpoint.load(folder, run.wire, self.optimizer)):
            progress = self.progress = found
            log.info("resuming at step %d", progress.step)
        log_file = (self.out / "metrics.jsonl").open("a")
        run.compile()
        marked, marked_step, before = time.monotonic(), progress.step, progress.seconds
        main = self.together.main
        with training_bar(config.steps or None, quiet=not main) as bar:
            while not self.finished(before):
                source, loss, metrics, norm = self.advance()
                now = time.monotonic()
                progress.seconds = before + now - self.began
                if progress.step % config.log_every == 0 or progress.step == progress.total:
                    row = self.row(source, loss, metrics, norm, (now - marked) / (progress.step - marked_step))
                    if main:
                        log_file.write(json.dumps(row) + "\n")
                        log_file.flush()
                    bar(progress.step, progress.total, row)
                    self.look(row)
                    marked, marked_step = time.monotonic(), progress.step
                    self.plan(row["step_seconds"], before)
                if main and config.eval_every and progress.step % config.eval_every == 0:
                    self.evaluate(log_file)
                    marked, marked_step = time.monotonic(), progress.step
                if main and config.save_every and progress.step % config.save_every == 0:
                    checkpoint.save(folder, run.wire, self.optimizer, progress)
                    marked, marked_step = time.monotonic(), progress.step
        if main and (not config.eval_every or progress.step % config.eval_every):
            self.evaluate(log_file)
        run.compile(False)
        run.wire.eval()
        if main:
            run.wire.save_pretrained(self.out / "wire")
            checkpoint.save(folder, run.wire, self.optimizer, progress)
        log_file.close()
        self.accelerator.wait_for_everyone()

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
        if not torch.isfinite(norm):
            self.progress.skipped += 1
        rows = self.config.passages * self.run.rows[source]
        behind = self.run.rows[source] * (self.config.corpus.row if source == "text" else self.config.corpus.asked)
        tokens = self.config.passages * (self.run.source_tokens + behind)
        row = {
            "step": self.progress.step,
            "source": source,
            "draw": self.drawn.name,
            "loss": round(float(loss), 5),
            "gradient": round(float(norm), 4),
            "rate": round(self.rate() * self.config.rate, 8),
            "step_seconds": round(seconds, 4),
            "rows_per_second": round(rows / seconds, 1),
            "tokens_per_second": round(tokens / seconds, 1),
            "seconds": round(self.progress.seconds, 1),
        }
        if self.peak:
            flops = step_flops(self.run.wire, self.config.passages, self.run.source_tokens, self.run.read_tokens,
                               behind, self.run.step.least, self.run.names)  # fmt: skip
            row["utilisation"] = round(flops / seconds / self.peak, 4)
        return row | {key: round(float(value), 5) for key, value in metrics.items()}

    def look(self, row: dict[str, Any]) -> None:
        """Give the collapse watch what it needs."""
        for name in self.run.names:
            if f"{name}/distinct" in row:
                self.watch.look(row["step"], name, row[f"{name}/distinct"], row.get(f"{name}/answer", math.nan))
        self.progress.events = self.watch.events

    @torch.no_grad()
    def evaluate(self, log_file: Any) -> None:
        """Answer loss on the slice kept aside; the best checkpoint is chosen by its smoothed value."""
        if self.run.stores["dev"] is None:
            return
        self.run.compile(False)
        self.run.wire.eval()
        row: dict[str, Any] = {"step": self.progress.step, "source": "dev"}
        losses = []
        device = self.accelerator.device
        for draw in self.draws:
            generator = torch.Generator(device).manual_seed(self.config.seed)
            dev = self.run.stores["dev-prompt" if draw.mode == "prompt" else "dev"]
            assert dev is not None
            batch = dev.draw(0, 0, generator)
            with self.accelerator.autocast():
                _, metrics = self.run.step(
                    batch, "questions", draw.ratio, draw.slots, draw.mode, self.done(), generator
                )
            row |= {f"{key}@{draw.name}": round(float(value), 5) for key, value in metrics.items()}
            losses += [float(metrics[f"{name}/answer"]) for name in self.run.names if f"{name}/answer" in metrics]
        self.run.wire.train()
        self.run.compile()
        if losses and math.isfinite(sum(losses)):
            value, progress = sum(losses) / len(losses), self.progress
            keep = 0.5 ** (1 / self.config.best_over)
            progress.smoothed = value if progress.smoothed is None else keep * progress.smoothed + (1 - keep) * value
            if progress.best is None or progress.smoothed < progress.best:
                progress.best = progress.smoothed
                self.run.wire.save_pretrained(self.out / "best")
            row |= {"answer": round(value, 5), "smoothed": round(progress.smoothed, 5)}
        log_file.write(json.dumps(row) + "\n")
        log_file.flush()
