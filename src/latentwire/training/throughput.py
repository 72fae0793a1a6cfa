"""How fast a run is: rows and tokens per second, and model-FLOP utilisation from counted operations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from latentwire.objectives import Objective
from latentwire.training.config import TrainConfig
from latentwire.training.setup import Run
from latentwire.wire import Wire

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 peak by a part of the device's name; utilisation is not given for others."""


def step_flops(
    wire: Wire, passages: int, source: int, read: int, rows: int, slots: int, names: list[str], taught: float = 1.0
) -> float:
    """Multiply-adds x 2 of one step, attention scores left out: forward 2 per weight and token, backward 4 where
    weights learn and 2 where a frozen receiver only passes gradients on; the teacher is forward only.

    source, read, rows: tokens per passage of the encoder, of a receiver's context and of its rows. taught: share of
    the passages that a teacher reads in the step itself.
    """

    def body(model: torch.nn.Module) -> int:
        return sum(p.numel() for p in model.parameters() if p.dim() >= 2) - model.get_input_embeddings().weight.numel()  # ty: ignore[not-callable]

    learns = [p.requires_grad for p in wire.encoder.parameters()]
    flops = (6.0 if any(learns) else 2.0) * sum(p.numel() for p in wire.encoder.parameters()) * source
    for name in names:
        receiver = wire.get_receiver(name)
        head = receiver.geometry.vocab * receiver.geometry.width
        link = sum(p.numel() for p in wire.links[name].parameters())
        flops += taught * (2.0 * body(receiver.decoder) * (read + rows) + 2.0 * head * rows)
        flops += 4.0 * (body(receiver.decoder) + head) * rows + 6.0 * link * slots
    return flops * passages


def taught(objectives: Iterable[Objective], source: str) -> float:
    """Share of the passages of such a step that a teacher reads live: none, where what it makes of them is kept."""
    judges = [one for one in objectives if one.taught and one.source in (None, source)]
    return max((one.taught for one in judges if not (one.cache and source == "questions")), default=0.0)


def speed(
    run: Run, config: TrainConfig, source: str, seconds: float, peak: float | None, readers: list[list[str]]
) -> dict[str, Any]:
    """Figures of speed of a step of ``seconds``; ``utilisation`` where the device's ``peak`` is known. readers: who
    reads in it; several lists where one of them is drawn anew for each step, and what it costs is their mean."""
    passages = config.passages * config.accumulate
    rows = run.rows[source] if any(readers) else 0
    behind = rows * (config.corpus.row if source == "text" else config.corpus.asked)
    found = {
        "step_seconds": round(seconds, 4),
        "rows_per_second": round(passages * rows / seconds, 1),
        "tokens_per_second": round(passages * (run.source_tokens + behind) / seconds, 1),
    }
    if peak:
        least, part = run.step.least, taught(run.step.objectives.values(), source)
        each = [
            step_flops(run.wire, passages, run.source_tokens, run.read_tokens, behind, least, names, part)
            for names in readers
        ]
        found["utilisation"] = round(sum(each) / len(each) / seconds / peak, 4)
    return found


def peak_flops(device: torch.device) -> float | None:
    """The device's dense bf16 peak, if it is a known one."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)
