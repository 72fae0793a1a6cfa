"""Time the training step of a config on random tokens: ``python benchmarks/train_step.py CONFIG [key=value …]``.

No corpus is read, so only the step itself is measured: milliseconds, rows and tokens a second, model-FLOP utilisation,
peak memory, for steps of text and of questions. ``--profile FILE`` also writes which kernels the time goes to, and for
how much of it the GPU works at all.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from shapes import kernels, sync

from latentwire.config import load
from latentwire.data.rows import read_examples
from latentwire.data.squad import shipped_valid
from latentwire.training.config import TrainConfig
from latentwire.training.loop import Loop
from latentwire.training.run import check
from latentwire.training.setup import assemble, make_wire
from latentwire.training.store import Store
from latentwire.wire import Wire


def random_stores(config: TrainConfig, wire: Wire, names: list[str]) -> dict[str, Store | None]:
    """Passages of full length with rows behind them, in the shapes of a real run."""
    rng, n, corpus = np.random.default_rng(0), 4 * config.passages, config.corpus

    def ids(rows: int, width: int) -> np.ndarray:
        return rng.integers(3, 1000, (rows, width), dtype=np.int32)

    prepared = wire.encoder.prepare([" the" * (corpus.longest // 2)] * 2, corpus.longest).arrays
    source = {key: np.repeat(value[:1], n, 0) for key, value in prepared.items()}
    source["ids"], source["count"] = ids(*source["ids"].shape), np.full(n, corpus.longest, np.int32)
    for key, value in source.items():
        if key.endswith("_at"):
            source[key] = np.tile(np.arange(value.shape[1], dtype=np.int32) // 2, (n, 1))
    width, full = int(corpus.longest * corpus.stretch), np.full(n, corpus.row, np.int32)
    asked_full = np.full(n, corpus.asked, np.int32)
    base = {name: {"ids": ids(n, width), "count": np.full(n, corpus.longest, np.int32)} for name in names}
    text = {name: part | {"next": ids(n, corpus.row), "next_count": full} for name, part in base.items()}
    asked = {
        name: part | {"questions": ids(n, corpus.asked), "asks": asked_full // 2, "length": asked_full // 2 + 5}
        for name, part in base.items()
    }
    return {
        "text": Store(source, text),
        "questions": Store(source, asked, np.arange(n), np.ones(n, np.int64)),
        "dev": None,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--profile", type=Path, help="write a table of kernels here")
    given = parser.parse_intermixed_args()
    config = load(given.config, TrainConfig, given.overrides)
    check(config)
    cuda = torch.cuda.is_available() and config.device != "cpu"
    accelerator = Accelerator(mixed_precision="bf16" if cuda else "no", cpu=not cuda)
    samples = list(dict.fromkeys(example.context for example in read_examples(shipped_valid())[:400]))
    wire, names = make_wire(config, samples, accelerator.device)
    run = assemble(config, wire, names, random_stores(config, wire, names), accelerator.device)
    loop = Loop(config, run, accelerator, Path())
    run.compile()
    figures: dict[str, dict] = {}
    for kind, other in (("text", "questions"), ("questions", "text")):
        kept, rows = run.stores[other], run.rows[kind]
        run.stores[other] = None  # then every step is of this kind
        begun = time.monotonic()
        for _ in range(4 * len(loop.schedules.draws)):
            loop.advance()
        sync()
        first, begun = time.monotonic() - begun, time.monotonic()
        for _ in range(given.steps):
            loss = loop.advance()[1]
        sync()
        seconds = (time.monotonic() - begun) / given.steps
        row = loop.row(kind, loss, {}, torch.zeros(()), seconds)
        figures[kind] = {
            "milliseconds": round(1000 * seconds, 2),
            "first_seconds": round(first, 1),
            "rows_per_second": round(config.passages * rows / seconds),
            "tokens_per_second": row["tokens_per_second"],
            "utilisation": row.get("utilisation"),
        }
        if cuda:
            figures[kind]["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if given.profile:
            kernels(loop.advance, kind, given.profile)
        run.stores[other] = kept
        print(kind, figures[kind], flush=True)
    if given.out:
        given.out.write_text(
            json.dumps({"config": str(given.config), "overrides": given.overrides, **figures}, indent=1)
        )


if __name__ == "__main__":
    main()
