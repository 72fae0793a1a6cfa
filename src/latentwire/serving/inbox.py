"""What jobs say, on its way from the engine's thread to the request that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request

from latentwire.serving.engine import Job


class Gone(Exception):
    """The client has left."""


class Inbox:
    """Events of one request's jobs, in order."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()

    def tell(self, number: int, event: Any) -> None:
        """Put an event in, from any thread."""
        # a loop that is closed has nobody left who waits
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.queue.put_nowait, (number, event))

    async def events(self, jobs: Sequence[Job]) -> AsyncIterator[tuple[int, Any]]:
        """All events until each job has said its last. Raises what a job failed with. Jobs are dropped once nobody
        asks for more."""
        open_ = len(jobs)
        try:
            while open_:
                number, event = await self.queue.get()
                if isinstance(event, Exception):
                    raise event
                open_ -= not isinstance(event, str)
                yield number, event
        finally:
            leave(jobs)

    async def last_words(self, jobs: Sequence[Job], request: Request) -> list[Any]:
        """The one thing that each job has to say, in the order of the jobs. Gone: the client left before."""
        watch = asyncio.ensure_future(self._watch(request))
        said: dict[int, Any] = {}
        try:
            async for number, event in self.events(jobs):
                said[number] = event
        finally:
            watch.cancel()
            leave(jobs)
        return [said[number] for number in range(len(jobs))]

    async def _watch(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.queue.put_nowait((0, Gone()))


def leave(jobs: Sequence[Job]) -> None:
    """Nobody waits for these any more; those that have finished do not mind."""
    for job in jobs:
        job.gone = True
