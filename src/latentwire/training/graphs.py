"""Forward and backward of a step, recorded once on the GPU and replayed.

A step of small models is some four thousand short kernels, and a Python process cannot start them as fast as a large
GPU runs them: a run that has the GPU for itself would leave half of it idle. A CUDA graph starts them all at once. Each
kind of step (source, ratio, weights, shapes) is recorded after a few ordinary ones; until then, and where weights
change with every step, steps are ordinary.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentwire.training.step import Step, Work
from latentwire.types import MODES

Parts = tuple[Tensor, dict[str, Tensor]]


@dataclass
class Recording:
    """A graph, the tensors it reads, and those it leaves its results in."""

    graph: Any
    reads: list[Tensor]
    loss: Tensor
    metrics: dict[str, Tensor]
    gradients: list[Tensor | None]


class Graphs:
    """``run(work, ratio, slots, mode)`` leaves the gradients in the parameters, like a backward pass, and returns
    loss and parts.

    What it returns is overwritten by the next step of its kind. warm: ordinary steps before a kind is recorded (they
    compile what there is to compile). record: makes a recording of a function; tests give one that needs no GPU.
    """

    def __init__(
        self,
        step: Step,
        parameters: list[nn.Parameter],
        autocast: Callable[[], contextlib.AbstractContextManager],
        warm: int = 3,
        record: Callable[[Callable[[], Parts], Any], tuple[Any, Parts]] | None = None,
    ) -> None:
        self.step, self.parameters, self.autocast, self.warm = step, parameters, autocast, warm
        self.record = record or record_cuda
        self.seen: Counter = Counter()
        self.held: dict[Any, Recording] = {}

    def run(self, work: Work, ratio: int, slots: int | None = None, mode: str = MODES[0]) -> Parts:
        """One forward and backward."""
        given = list(tensors(work))
        named = tuple((name, *read) for name, read in work.read.items())  # who reads, and whether the step mixes
        key = ratio, slots, mode, work.pieces, work.weights, named, tuple((t.shape, t.dtype) for t in given)
        found = self.held.get(key)
        if found is None:
            self.seen[key] += 1
            if self.seen[key] <= self.warm:
                return self._plain(work, ratio, slots, mode)
            found = self.held[key] = self._recording(work, ratio, slots, mode)
        for place, value in zip(found.reads, given, strict=True):
            place.copy_(value, non_blocking=True)
        found.graph.replay()
        for parameter, gradient in zip(self.parameters, found.gradients, strict=True):
            parameter.grad = gradient
        return found.loss, found.metrics

    def forget(self) -> None:
        """Throw all recordings away: other parameters learn from here on, or memory is short."""
        self.held.clear()
        self.seen.clear()

    def _plain(self, work: Work, ratio: int, slots: int | None, mode: str) -> Parts:
        with self.autocast():
            loss, metrics = self.step.losses(work, ratio, slots, mode)
        loss.backward()
        return loss.detach(), metrics

    def _recording(self, work: Work, ratio: int, slots: int | None, mode: str) -> Recording:
        own = copied(work)
        for parameter in self.parameters:
            parameter.grad = None  # the backward pass that is recorded makes gradients of its own
        pool = next(iter(self.held.values())).graph.pool() if self.held else None
        graph, (loss, metrics) = self.record(lambda: self._plain(own, ratio, slots, mode), pool)
        return Recording(graph, list(tensors(own)), loss, metrics, [p.grad for p in self.parameters])


def record_cuda(work: Callable[[], Parts], pool: Any) -> tuple[Any, Parts]:
    """Record ``work`` as a CUDA graph; graphs share their memory, since only one runs at a time."""
    graph = torch.cuda.CUDAGraph()
    # other threads (a process group's watchdog, say) may ask the GPU things meanwhile
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        left = work()
    return graph, left


def tensors(work: Work) -> Generator[Tensor]:
    """All tensors of a step's work, in a fixed order."""
    yield from work.source.values()
    for read in work.read.values():
        yield from read.values()


def copied(work: Work) -> Work:
    """The same work in tensors of its own."""
    return Work(
        {key: value.clone() for key, value in work.source.items()},
        {name: {key: value.clone() for key, value in read.items()} for name, read in work.read.items()},
        work.pieces,
        work.weights,
    )
