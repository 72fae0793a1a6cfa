"""Answers as server-sent events, while they are written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from latentwire.serving.engine import Job, as_api_error
from latentwire.serving.inbox import Inbox, leave
from latentwire.serving.shapes import Shape


class Stream(StreamingResponse):
    """A stream whose jobs are dropped however it ends: a client that leaves frees its rows at the next step."""

    def __init__(self, jobs: Sequence[Job], inbox: Inbox, shape: Shape, counts: bool) -> None:
        self.jobs = jobs
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events(jobs, inbox, shape, counts), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            leave(self.jobs)


async def events(jobs: Sequence[Job], inbox: Inbox, shape: Shape, counts: bool) -> AsyncIterator[str]:
    """Pieces of each choice, its end, and ``[DONE]``. An error ends the stream as an event of its own."""
    answers: dict[int, Any] = {}
    for number in range(len(jobs)):
        yield line(shape.piece(number, "", first=True))
    try:
        async for number, event in inbox.events(jobs):
            if isinstance(event, str):
                yield line(shape.piece(number, event))
            else:
                answers[number] = event
                yield line(shape.last(number, event))
    except Exception as error:
        yield line(as_api_error(error).body())
        return
    if counts:
        yield line(shape.counts(list(answers.values())))
    yield "data: [DONE]\n\n"


def line(content: dict[str, Any]) -> str:
    """One event."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
