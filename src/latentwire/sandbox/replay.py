"""Forward and backward of a reader's step, recorded once on the GPU and replayed.

A small reader's step is some thousand short kernels: a Python process cannot start them as fast as a large GPU runs
them. The two kinds of batch (text, packed questions) each have one shape, so each is one CUDA graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from latentwire.receivers.capture import on_stream
from latentwire.sandbox.feed import Batch
from latentwire.training.graphs import record_cuda


class Replay:
    """``run(batch)`` does what ``work(batch)`` does: adds to the weights' gradients and returns a figure.

    Gradients must be tensors that stay where they are (zeroed, never set to None). warm: ordinary steps before a kind
    is recorded. record: makes a recording of a function; tests give one that needs no GPU.
    """

    def __init__(
        self,
        work: Callable[[Batch], Tensor],
        warm: int = 3,
        record: Callable[[Callable[[], Tensor], Any], tuple[Any, Tensor]] | None = None,
    ) -> None:
        self.work, self.warm = work, warm
        self.stream = None if record else torch.cuda.Stream()
        self.record = record or (lambda work, pool: record_cuda(work, pool, self.stream))
        self.seen: Counter = Counter()
        self.held: dict[Any, tuple[Any, Batch, Tensor]] = {}

    def run(self, batch: Batch) -> Tensor:
        """One forward and backward."""
        given = tensors(batch)
        key = tuple((name, tensor.shape) for name, tensor in given.items())
        if key not in self.held:
            self.seen[key] += 1
            if self.seen[key] <= self.warm:
                with on_stream(self.stream):
                    return self.work(batch)
            own = replace(batch, **{name: tensor.clone() for name, tensor in given.items()})
            pool = next(iter(self.held.values()))[0].pool() if self.held else None
            graph, left = self.record(lambda: self.work(own), pool)
            self.held[key] = graph, own, left
        graph, own, left = self.held[key]
        for name, tensor in given.items():
            getattr(own, name).copy_(tensor, non_blocking=True)
        graph.replay()
        return left.clone()  # the next step of this kind overwrites what it left


def tensors(batch: Batch) -> dict[str, Tensor]:
    """What a batch holds, by name."""
    found = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: tensor for name, tensor in found.items() if tensor is not None}
