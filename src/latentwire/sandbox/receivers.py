"""Train a sandbox reader: ``python -m latentwire.sandbox.receivers CONFIG [key=value …] [--data-dir DIR]``.

One falling learning rate over two phases. *Language*: Wikipedia text, with packed rows of made questions in between
from a certain point on. *Questions*: rows of made and of real questions, the loss on the answers (and a little on the
rest), the share of real ones rising. A phase is bounded by minutes (its schedule follows the speed measured) or by
steps (then a killed run ends with the same weights as an unbroken one). The run's folder holds tokenizer, data shards,
state, ``metrics.jsonl`` and, at the end, ``checkpoint/`` for transformers and ``packed/``, the form that is shipped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentwire import config as configs
from latentwire import weights
from latentwire.data.rows import data_dir
from latentwire.errors import UserError
from latentwire.sandbox import checkpoint, corpus, packing
from latentwire.sandbox.config import ReaderConfig
from latentwire.sandbox.feed import Batch, Feed, dummy
from latentwire.sandbox.optim import Optimiser
from latentwire.sandbox.replay import Replay
from latentwire.sandbox.schedule import Clock, Phase
from latentwire.sandbox.trunk import Trunk, init
from latentwire.shipped import resolve


class Run:
    """A training run in its folder. phases: those of the config, if not given."""

    kinds = (False, True)
    """Which batches there are, packed ones or plain ones: both are compiled for."""

    def __init__(self, config: ReaderConfig, data: Path, phases: dict[str, Phase] | None = None) -> None:
        self.config, self.data = config, data
        self.folder = Path(config.out) / config.name
        self.folder.mkdir(parents=True, exist_ok=True)
        cuda = torch.cuda.is_available()
        self.device = torch.device(("cuda" if cuda else "cpu") if config.device == "auto" else config.device)
        self.precision = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        if self.device.type == "cuda":
            torch.backends.cuda.enable_cudnn_sdp(False)
        fresh = (
            checkpoint.read(config.shape, Path(resolve(config.start)))
            if config.start
            else init(config.shape, config.seed)
        )
        masters = {n: t.to(self.device).contiguous() for n, t in fresh.items()}
        self.weights = {n: t.to(self.precision, copy=True).requires_grad_() for n, t in masters.items()}
        for leaf in self.weights.values():
            leaf.grad = torch.zeros_like(leaf)
        self.optimiser = Optimiser(self.weights, masters)
        compiled = config.compiled and self.device.type == "cuda"
        self.trunk = Trunk(config.shape, self.weights, compiled)
        self.pass_both_ways = Replay(self._plain).run if compiled and config.graphs else self._plain
        self.clock = Clock(phases or {"language": config.language, "questions": config.questions})
        self.tokens = 0
        self.metrics = self.folder / "metrics.jsonl"
        self._pending: Future[tuple[packing.Rows, packing.Rows]] | None = None

    def prepare(self) -> Feed:
        """Tokenizer and shards, made where they are missing, and the text on the device; compiles meanwhile."""
        config, path = self.config, self.folder / "tokenizer.json"
        corpus.tokenizer(config, self.data, path)
        folder, workers = self.folder / "corpus", config.workers or os.cpu_count() or 1
        todo = corpus.jobs(self.data, folder, path, config.row, config.seed, config.limit, config.made_every)

        def language() -> np.ndarray:
            return corpus.load_text(corpus.build(todo["text"], workers), config.row)

        def questions() -> tuple[packing.Rows, packing.Rows]:
            built = corpus.build([*todo["asked"], *todo["made"]], workers)
            return corpus.load_rows(built[1:]), corpus.load_rows(built[:1])

        # compiling needs no data, and language modelling no questions: both are made on the other cores meanwhile
        aside = ThreadPoolExecutor(1)
        text, self._pending = aside.submit(language), aside.submit(questions)
        self.warm_up()
        feed = Feed(text.result(), config.shape.positions, config.seed, self.device)
        print(f"{config.name}: {feed.orders['text'].size} rows of text", flush=True)
        return feed

    def need_questions(self, feed: Feed) -> None:
        """Wait for the questions, once."""
        if self._pending is not None:
            feed.add(*self._pending.result())
            self._pending = None
            sizes = {name: order.size for name, order in feed.orders.items()}
            print(f"{self.config.name}: rows {sizes}", flush=True)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, and the mean loss on answers (on everything where a batch has none)."""
        x_BTE = self.trunk.states(batch.ids, batch.position, batch.allowed)
        each = self.trunk.losses(x_BTE, batch.target)
        answer, rest = (batch.role == packing.ANSWER).float(), (batch.role == packing.REST).float()
        on_rest = (each * rest).sum() / rest.sum().clamp(min=1)
        if batch.allowed is None:
            return on_rest, on_rest.detach()
        on_answer = (each * answer).sum() / answer.sum().clamp(min=1)
        return on_answer + self.config.rest * on_rest, on_answer.detach()

    def step(self, batch: Batch, rate: float) -> tuple[Tensor, Tensor]:
        """One optimiser step; returns the logged loss and the gradient's norm, both still on the device."""
        logged = self.pass_both_ways(batch)
        self.tokens += batch.ids.numel()
        return logged, self.optimiser.step(rate)

    def _plain(self, batch: Batch) -> Tensor:
        loss, logged = self.loss(batch)
        loss.backward()
        return logged

    def batch(self, feed: Feed) -> Batch:
        """The next batch of the current phase."""
        config, clock, done = self.config, self.clock, self.clock.progress
        if clock.phase == "language":
            if done < config.made_from:
                return feed.plain(config.batch, clock.count)
            self.need_questions(feed)
            turn = int((clock.step + 1) * config.made_share) > int(clock.step * config.made_share)
            if turn:
                return feed.questions(config.batch, 0, clock.count)
            return feed.plain(config.batch, clock.count)
        self.need_questions(feed)
        # real questions: from half to one and a half times their mean share, so that they come last
        left = config.epochs * feed.orders["asked"].size - feed.seen["asked"]
        to_come = max((clock.total - clock.step) * config.batch, config.batch)
        share = left / to_come * (0.5 + done) / (1.0 + done / 2.0) if done < 1 else 0.0
        return feed.questions(config.batch, round(config.batch * min(max(share, 0.0), 0.9)), clock.count)

    def warm_up(self) -> None:
        """Compile everything on the real shapes before the clock starts; leaves no trace."""
        begun, config = time.monotonic(), self.config
        for packed in self.kinds:
            self.loss(dummy(config.batch, config.row, packed, self.device))[0].backward()
        for leaf in self.weights.values():
            leaf.grad.zero_()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        print(f"{config.name}: ready after {time.monotonic() - begun:.1f} s", flush=True)

    def save(self, feed: Feed) -> None:
        """Keep the run's state."""
        facts = {"clock": self.clock.state(), "seen": feed.seen, "tokens": self.tokens, "config": self.hash}
        checkpoint.save_state(self.folder / "state.safetensors", self.optimiser.state(), facts)

    @property
    def hash(self) -> str:
        """Names what may not change between the two halves of a run."""
        tree = configs.encode(self.config)
        return configs.config_hash(
            {k: v for k, v in tree.items() if k not in ("out", "device", "workers", "log_every")}
        )

    def resume(self, feed: Feed) -> None:
        """Take up the state in the folder, if there is one."""
        path = self.folder / "state.safetensors"
        if not path.exists():
            return
        tensors, facts = checkpoint.load_state(path)
        if facts["config"] != self.hash:
            raise UserError(f"{path} was written with another config; give another out=, or delete that folder")
        self.optimiser.load(tensors)
        self.clock.load(facts["clock"])
        feed.seen.update(facts["seen"])
        self.tokens = facts["tokens"]
        print(f"{self.config.name}: goes on at {self.clock.phase} step {self.clock.step}", flush=True)

    def train(self) -> Path:
        """The whole run; returns the checkpoint's folder."""
        feed = self.prepare()
        self.resume(feed)
        saved, phase = time.monotonic(), self.clock.phase
        for facts in self._steps(feed):
            with self.metrics.open("a") as file:
                file.write(json.dumps(facts) + "\n")
            if self.clock.phase and self.clock.phase != phase:
                self.save(feed)
                self.export(phase)
                phase, saved = self.clock.phase, time.monotonic()
            elif time.monotonic() - saved > 60 * self.config.save_minutes:
                self.save(feed)
                saved = time.monotonic()
        folder = self.export("checkpoint")
        weights.pack(folder, self.folder / "packed")
        self.save(feed)
        return folder

    def export(self, name: str) -> Path:
        """The present weights as a transformers checkpoint in the run's folder."""
        folder = self.folder / name
        checkpoint.export(self.config.shape, self.optimiser.masters, self.folder / "tokenizer.json", folder)
        return folder

    def _steps(self, feed: Feed) -> Iterator[dict]:
        from rich.progress import Progress, TimeElapsedColumn

        config, clock = self.config, self.clock
        kinds: dict[str, list[Tensor]] = {"text": [], "answer": []}
        columns = (*Progress.get_default_columns(), TimeElapsedColumn())
        with Progress(*columns, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task(config.name, total=1.0)
            clock.start()
            tokens, since = self.tokens, time.monotonic()
            while clock.phase:
                batch = self.batch(feed)
                logged, norm = self.step(batch, config.rate * clock.rate)
                kinds["text" if batch.allowed is None else "answer"].append(logged)
                phase, rate, step = clock.phase, config.rate * clock.rate, clock.step
                if (step + 1) % config.log_every == 0 or clock.last:
                    losses = {
                        k: round(torch.stack(v).mean().item(), 4) for k, v in kinds.items() if v
                    }  # waits for the GPU
                    speed = (self.tokens - tokens) / max(time.monotonic() - since, 1e-9)
                    facts = {"phase": phase, "step": step + 1, **losses, "rate": round(rate, 6)}
                    facts |= {"norm": round(norm.item(), 3), "tokens": self.tokens, "tokens_per_s": round(speed)}
                    facts |= {"skipped": int(self.optimiser.skipped.item()), "done": round(clock.progress, 4)}
                    for held in kinds.values():
                        held.clear()
                    clock.measure()
                    bar.update(task, completed=clock.progress, description=f"{config.name} {phase} {losses}")
                    tokens, since = self.tokens, time.monotonic()
                    clock.advance()
                    yield facts | {"total": clock.total}
                else:
                    clock.advance()


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m latentwire.sandbox.receivers", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("config", help="a YAML file, for example configs/sandbox/readers/llama.yaml")
    parser.add_argument("overrides", nargs="*", help="key=value, for example language.minutes=2 shape.layers=4")
    parser.add_argument("--data-dir", help="folder with text/, squad/, nq/ (else LATENTWIRE_DATA)")
    parser.add_argument("--corpus-only", action="store_true", help="make tokenizer and shards, then stop")
    given = parser.parse_intermixed_args(arguments)
    try:
        config = configs.load(given.config, ReaderConfig, given.overrides)
        run = Run(config, data_dir(given.data_dir))
        if given.corpus_only:
            run.need_questions(run.prepare())
        else:
            print(run.train())
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
