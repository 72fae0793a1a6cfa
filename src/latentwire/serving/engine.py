"""The one thread that computes: what waits together and may share a batch is done in one.

All work on models is done here, one batch at a time: on a GPU or on few cores two batches side by side only take each
other's time, and a batch that is twice as large costs far less than twice as much. Jobs are begun in the order they
came in; jobs of the same key that wait behind the first come along. How many wait is bounded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from latentwire.errors import UserError
from latentwire.serving.errors import ApiError
from latentwire.serving.limits import Limits
from latentwire.serving.metrics import Metrics

log = logging.getLogger("latentwire.serving")


@dataclass(eq=False, kw_only=True)
class Job:
    """One thing that somebody waits for. tell: called from the engine's thread with what there is to say.

    gone: whoever asked has left; set from any thread. told: something was said already, so it cannot be begun again.
    finished: all was said.
    """

    tell: Callable[[Any], None]
    gone: bool = False
    told: bool = False
    finished: bool = False
    arrived: float = field(default_factory=time.perf_counter)
    work = "job"

    @property
    def key(self) -> Hashable:
        """Jobs of equal keys may share a batch."""
        return id(self)

    @property
    def size(self) -> int:
        """Positions of its context."""
        return 1

    @classmethod
    def run(cls, jobs: list[Any], metrics: Metrics) -> None:
        """Do jobs of one key together, and tell each what came of it."""
        raise NotImplementedError

    def say(self, event: Any, last: bool = True) -> None:
        """Tell whoever waits; mostly there is one thing to say."""
        self.told, self.finished = True, last
        self.tell(event)


class Engine:
    """Waiting jobs and the thread that does them."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits, self.metrics = limits, metrics
        self.jobs: deque[Job] = deque()
        self.promised = 0
        self.closing = False
        self.change = threading.Condition()
        self.thread = threading.Thread(target=self._work, name="latentwire-engine", daemon=True)
        metrics.gauge("latentwire_queue_depth", "Rows that are accepted and not begun.", lambda: self.depth)

    @property
    def depth(self) -> int:
        """Rows that wait, those that a request in preparation was promised a place for included."""
        return len(self.jobs) + self.promised

    def start(self) -> None:
        """Begin to work."""
        self.thread.start()

    def close(self) -> None:
        """Do what was accepted, then stop."""
        with self.change:
            self.closing = True
            self.change.notify_all()
        self.thread.join()

    def reserve(self, rows: int) -> None:
        """Promise places, before the work of preparing. ApiError 429: there are not so many; 503: it is closing."""
        with self.change:
            if self.closing:
                raise ApiError(503, "the server is shutting down", "shutting_down")
            if self.depth + rows > self.limits.waiting:
                raise ApiError(
                    429, f"{self.depth} prompts wait already, of {self.limits.waiting} that may; try again shortly",
                    "queue_full",
                )  # fmt: skip
            self.promised += rows

    def release(self, rows: int) -> None:
        """Give promised places back."""
        with self.change:
            self.promised -= rows

    def submit(self, jobs: list[Job]) -> None:
        """Let jobs wait in the places that they were promised."""
        with self.change:
            self.promised -= len(jobs)
            self.jobs.extend(jobs)
            self.change.notify_all()

    # -- the engine's thread ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while batch := self._take():
            self.metrics.batches.see(len(batch), batch[0].work)
            self._do(batch)

    def _take(self) -> list[Job]:
        """The next batch: the job that has waited longest, and all behind it that fit. Empty: closed, nothing waits."""
        with self.change:
            while True:
                self._drop()
                if self.jobs and not self.closing:
                    key, until = self.jobs[0].key, self.jobs[0].arrived + self.limits.linger
                    while (left := until - time.perf_counter()) > 0 and not self.closing:
                        if sum(job.key == key for job in self.jobs) >= self.limits.batch:
                            break
                        self.change.wait(left)
                    self._drop()
                if self.jobs:
                    break
                if self.closing and not self.promised:
                    return []
                self.change.wait(0.1 if self.closing else None)
            taken, longest = [self.jobs[0]], self.jobs[0].size
            for job in list(self.jobs)[1:]:
                wider = max(longest, job.size)
                if job.key != taken[0].key or (len(taken) + 1) * wider > self.limits.positions:
                    continue
                if len(taken) == self.limits.batch:
                    break
                taken.append(job)
                longest = wider
            chosen = set(map(id, taken))
            self.jobs = deque(job for job in self.jobs if id(job) not in chosen)
            return taken

    def _drop(self) -> None:
        """Forget jobs whose clients have left."""
        here = deque(job for job in self.jobs if not job.gone)
        self.metrics.gone.add(by=len(self.jobs) - len(here))
        self.jobs = here

    def _do(self, batch: list[Job]) -> None:
        try:
            type(batch[0]).run(batch, self.metrics)
        except Exception as error:
            for job in batch:
                if job.finished or job.gone:
                    continue
                # one bad row must not take its neighbours with it
                if len(batch) > 1 and not job.told:
                    self._do([job])
                else:
                    job.say(as_api_error(error))


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of an error; what it was not meant to see goes to the log."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):
        return ApiError(400, str(error), "invalid_value")
    log.error("a batch failed", exc_info=error)
    return ApiError(500, "the server failed on this request; its log says why", "internal_error")
