"""Forward and backward of a step, recorded once on the GPU and replayed.

A step of small models is some four thousand short kernels, and a Python process cannot start them as fast as a large
GPU runs them: a run that has the GPU for itself would leave half of it idle. A CUDA graph starts them all at once. Each
kind of step (source, ratio, objectives, shapes) is recorded after a few ordinary ones. Weights are among what is
replaced at each replay, so they may change with every step. A kind that cannot be recorded stays ordinary, with a
warning.

The ordinary steps before a recording run on the stream that it is recorded on: a parameter's place in autograd's graph
remembers the stream of its first use, and one that remembers another stream breaks the recording.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from latentwire.receivers.capture import captured, on_stream
from latentwire.training.step import Step
from latentwire.training.work import Work

log = logging.getLogger(__name__)

Parts = tuple[Tensor, dict[str, Tensor]]
T = TypeVar("T")


@dataclass
class Recording:
    """A graph, the tensors it reads, and those it leaves its results in."""

    graph: Any
    reads: list[Tensor]
    loss: Tensor
    metrics: dict[str, Tensor]
    gradients: list[Tensor | None]


class Graphs:
    """``run(work, ratio, …)`` leaves the gradients in the parameters, like a backward pass; returns loss and parts.

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
        self.stream = None if record else torch.cuda.Stream()
        self.record = record or (lambda work, pool: record_cuda(work, pool, self.stream))
        self.seen: Counter = Counter()
        self.held: dict[Any, Recording] = {}
        self.ordinary: set[Any] = set()

    def run(self, work: Work, *draw: Any) -> Parts:
        """One forward and backward. draw: what :meth:`Step.losses` is told besides, at least the ratio."""
        given = list(tensors(work))
        named = tuple((name, *read) for name, read in work.read.items())  # who reads, and whether the step mixes
        key = *draw, work.pieces, work.active, named, tuple((t.shape, t.dtype) for t in given)
        found = self.held.get(key)
        if found is None:
            self.seen[key] += 1
            if self.seen[key] > self.warm and key not in self.ordinary:
                found = self._try_recording(key, work, draw)
        if found is None:
            with on_stream(self.stream):
                return self._plain(work, draw)
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
        self.ordinary.clear()

    def _try_recording(self, key: Any, work: Work, draw: tuple) -> Recording | None:
        try:
            found = self.held[key] = self._recording(work, draw)
        except RuntimeError as error:  # a CUDA error is one, running out of memory too
            self.ordinary.add(key)
            for parameter in self.parameters:
                parameter.grad = None  # what the broken recording has left
            log.warning(
                "a step of %dx could not be recorded and stays ordinary, which is slower: %s",
                draw[0], str(error).split("\n")[0],
            )  # fmt: skip
            return None
        return found

    def _plain(self, work: Work, draw: tuple) -> Parts:
        with self.autocast():
            loss, metrics = self.step.losses(work, *draw)
        if loss.requires_grad:  # else nothing that learns in this stage has a part in it
            loss.backward()
        return loss.detach(), metrics

    def _recording(self, work: Work, draw: tuple) -> Recording:
        own = copied(work)
        for parameter in self.parameters:
            parameter.grad = None  # the backward pass that is recorded makes gradients of its own
        pool = next(iter(self.held.values())).graph.pool() if self.held else None
        graph, (loss, metrics) = self.record(lambda: self._plain(own, draw), pool)
        return Recording(graph, list(tensors(own)), loss, metrics, [p.grad for p in self.parameters])


def record_cuda(work: Callable[[], T], pool: Any, stream: Any) -> tuple[Any, T]:
    """Record ``work`` as a CUDA graph on ``stream``; graphs share their memory, since only one runs at a time."""
    # what is left of earlier steps in reference cycles would take part in this one's backward pass
    gc.collect()
    return captured(work, pool, stream)


def tensors(work: Work) -> Generator[Tensor]:
    """All tensors of a step's work, in a fixed order."""
    yield from work.source.values()
    for read in work.read.values():
        yield from read.values()
    yield work.weight_N
    yield work.progress


def copied(work: Work) -> Work:
    """The same work in tensors of its own."""
    return Work(
        {key: value.clone() for key, value in work.source.items()},
        {name: {key: value.clone() for key, value in read.items()} for name, read in work.read.items()},
        work.pieces,
        work.active,
        work.weight_N.clone(),
        work.progress.clone(),
    )
