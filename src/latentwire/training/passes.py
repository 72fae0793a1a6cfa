"""Forward and backward of one optimiser step: at once or in parts, recorded or not, and again if memory runs out."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from latentwire.errors import UserError
from latentwire.training.config import Draw
from latentwire.training.graphs import Graphs, Parts
from latentwire.training.pieces import most_parts, split
from latentwire.training.step import Step
from latentwire.training.work import Work

log = logging.getLogger(__name__)


class Passes:
    """``run(kind, work, draw)`` leaves the gradients in the parameters and returns loss and parts.

    accumulate: parts of every step. pieces: parts of each kind of step that did not fit into memory so, by kind; kept
    in checkpoints, since sums in another order are other sums in the last bit. told: called with an event that a run's
    log should have. graphs: None where steps are ordinary. shared: every part is work of all processes, so none of them
    may make more of a step.
    """

    def __init__(
        self,
        step: Step,
        parameters: list[nn.Parameter],
        autocast: Callable[[], contextlib.AbstractContextManager],
        graphs: Graphs | None,
        accumulate: int,
        told: Callable[[dict], None],
        shared: bool = False,
    ) -> None:
        self.step, self.parameters, self.autocast, self.graphs = step, parameters, autocast, graphs
        self.accumulate, self.told, self.shared = accumulate, told, shared
        self.pieces: dict[str, int] = {}
        # what counts passes (a ramp, an annealing)
        self.counters = [b for b in step.buffers() if b.dtype is torch.int64 and b.numel() == 1]

    def run(self, kind: str, work: Work, draw: Draw) -> Parts:
        """One forward and backward of all the work. UserError: a single passage does not fit into memory."""
        counted = [(buffer, buffer.clone()) for buffer in self.counters]
        while True:
            parts, most = self.parts(kind, work), most_parts(work, self.step)
            try:
                return self.attempt(work, draw, parts)
            except torch.cuda.OutOfMemoryError as error:
                reason = " ".join(str(error).split())[:200]
            # outside of the except block, where the error would still hold the tensors of the step
            self.retreat(kind, parts, most, reason)
            for buffer, value in counted:
                buffer.copy_(value)

    def parts(self, kind: str, work: Work) -> int:
        """In how many parts the work is done."""
        return min(self.pieces.get(kind, self.accumulate), most_parts(work, self.step))

    def attempt(self, work: Work, draw: Draw, parts: int) -> Parts:
        """The work in so many parts."""
        works = split(work, parts, self.step)
        if len(works) == 1:
            return self.one(work, draw)
        total: Tensor | None = None
        metrics: dict[str, Tensor] = {}
        sums: list[Tensor | None] = [None] * len(self.parameters)
        counted = [(buffer, buffer.clone()) for buffer in self.counters]
        for one, share in works:
            # buffers that count steps see one step, however many parts it has
            for buffer, value in counted:
                buffer.copy_(value)
            loss, found = self.one(one, draw)
            total = loss * share if total is None else total + loss * share
            for key, value in found.items():
                # a token is a name, not an amount: the last part's stands for all
                add = key in metrics and not key.endswith("/token")
                metrics[key] = metrics[key] + value * share if add else value * (1 if key.endswith("/token") else share)
            for place, p in enumerate(self.parameters):
                if p.grad is not None:
                    # not in place of p.grad: a recorded step owns its gradients and writes over them
                    before = sums[place]
                    sums[place] = p.grad * share if before is None else before.add_(p.grad, alpha=share)
                    p.grad = None
        for p, gradient in zip(self.parameters, sums, strict=True):
            p.grad = gradient
        assert total is not None
        return total, metrics

    def one(self, work: Work, draw: Draw) -> Parts:
        """Forward and backward of one part."""
        if self.graphs is not None:
            return self.graphs.run(work, *draw.how)
        with self.autocast():
            loss, metrics = self.step.losses(work, *draw.how)
        if loss.requires_grad:  # else nothing that learns in this stage has a part in it
            loss.backward()
        return loss.detach(), metrics

    def retreat(self, kind: str, parts: int, most: int, reason: str) -> None:
        """Make ready to do this kind of step in twice as many parts."""
        for p in self.parameters:
            p.grad = None
        if parts >= most:
            raise UserError(
                f"one passage alone, or as few as an objective compares, does not fit into memory ({reason}); the last "
                "checkpoint is kept. Lower corpus.longest, corpus.row or asks, or freeze the encoder"
            )
        if self.shared:
            raise UserError(
                f"a step of {kind} does not fit into memory ({reason}), and with shard no process can do it in more "
                f"parts alone; begin again with accumulate={2 * parts} and half as many passages"
            )
        if self.graphs is not None:
            log.warning("recorded steps hold memory of their own: steps are ordinary from here on")
            self.graphs = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.pieces[kind] = parts = min(2 * parts, most)
        log.warning("out of memory in a step of %s; such steps are done in %d parts from here on", kind, parts)
        self.told({"event": "out of memory", "kind": kind, "parts": parts, "reason": reason})

    def first_part(self, kind: str, work: Work) -> Work:
        """As much of the work as is done at once."""
        return split(work, self.parts(kind, work), self.step)[0][0]

    def forget(self) -> None:
        """Throw recordings away: other parameters learn from here on."""
        if self.graphs is not None:
            self.graphs.forget()
