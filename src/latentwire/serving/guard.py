"""What stands in front of the app: keys, sizes, a full queue, and the counting of it all.

A request that is not wanted is refused before its body is read, and a body is never read beyond what is allowed.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latentwire.serving.errors import ApiError
from latentwire.serving.service import Service

OPEN = ("/", "/page.js", "/health")
"""Answered without a key: the page holds nothing, and whoever looks after a server asks for its health."""
ROUTES = (
    *OPEN,
    "/metrics",
    "/v1/models",
    "/v1/latents",
    "/v1/latents/prompt_embeds",
    "/v1/completions",
    "/v1/chat/completions",
)


class Guard:
    """Around an app. keys: any of them opens it; none: it is open."""

    def __init__(self, app: ASGIApp, service: Service, keys: Sequence[str] = ()) -> None:
        self.app, self.service = app, service
        self.keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, path = time.perf_counter(), scope["path"]
        route = path if path in ROUTES else "other"
        status, metrics = 499, self.service.metrics  # 499: the client left before there was one

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            try:
                headers = Headers(scope=scope)
                self._allow(path, headers)
                body = await self._body(scope, headers, receive)
            except ApiError as error:
                scope["refused"] = error.code
                await refuse(error)(scope, receive, counted)
            else:
                if body is not None:
                    await self.app(scope, replayed(body, receive), counted)
        finally:
            metrics.requests.add(route, str(status))
            metrics.seconds.see(time.perf_counter() - begun, route)
            if status >= 400:
                metrics.errors.add(route, scope.get("refused", str(status)))

    def _allow(self, path: str, headers: Headers) -> None:
        """ApiError 401: a key is wanted and none of them was given."""
        if not self.keys or path in OPEN:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        # every key is compared, in a time that does not tell how much of it was right; latin-1 gives a header's bytes
        right = [hmac.compare_digest(given.strip().encode("latin-1"), key) for key in self.keys]
        if kind.lower() != "bearer" or not any(right):
            raise ApiError(401, "this server wants a key: send it as `Authorization: Bearer KEY`", "invalid_api_key")

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None: the client left. ApiError: it is too large, no JSON by its type, or nobody can wait."""
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return b""
        most, engine = self.service.limits.body, self.service.engine
        large = ApiError(413, f"the body is larger than the {most:,} bytes that this server takes", "body_too_large")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > most:
            raise large
        # a page of another site may send a form or plain text to a server on this machine, but no JSON unasked
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "send the body as JSON, with `Content-Type: application/json`", "not_json")
        if engine.depth >= self.service.limits.waiting:
            engine.reserve(1)  # says why not
            engine.release(1)
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise large
            if not message.get("more_body", False):
                return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """``receive`` as if the body had not been read yet."""
    left: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again


def refuse(error: ApiError) -> JSONResponse:
    """An error as a response."""
    return JSONResponse(error.body(), error.status, error.headers)
