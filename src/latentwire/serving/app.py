"""The routes. Each prepares its jobs, lets them wait, and writes what comes of them in OpenAI's shape."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from latentwire import __version__
from latentwire.errors import UserError
from latentwire.serving import shapes
from latentwire.serving.embeds import payload_text
from latentwire.serving.engine import Job, as_api_error
from latentwire.serving.errors import ApiError, invalid, of_validation
from latentwire.serving.guard import Guard, refuse
from latentwire.serving.inbox import Gone, Inbox
from latentwire.serving.prompts import chat_jobs, completion_jobs, prompts_of
from latentwire.serving.schema import ChatRequest, CompletionRequest, LatentsRequest, PromptEmbedsRequest, Sampling
from latentwire.serving.service import Service, Tell
from latentwire.serving.stream import Stream

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may do: run its own script and ask this server, nothing else."""


def build(service: Service, keys: Sequence[str] = ()) -> ASGIApp:
    """The whole server as an ASGI app. keys: any of them is wanted as a bearer token; none: everybody may ask."""
    desk = Desk(service)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        service.engine.start()
        yield
        await asyncio.to_thread(service.engine.close)

    # no pages of the framework's own: they would load scripts from elsewhere
    app = FastAPI(title="LatentWire", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(HERE / "page.html", headers={"Content-Security-Policy": POLICY})

    @app.get("/page.js", include_in_schema=False)
    async def script() -> Response:
        return FileResponse(HERE / "page.js", media_type="text/javascript")

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Alive, and how many wait."""
        return {"status": "ok", "encoder": service.wire.fingerprint.hex(), "waiting": service.engine.depth}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counts, for Prometheus."""
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """A model for each receiver."""
        return {"object": "list", "data": service.models()}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        """One of them."""
        return next(each for each in service.models() if each["id"] == service.known(name))

    @app.post("/v1/latents")
    async def latents(asked: LatentsRequest, request: Request) -> Response:
        """Texts in, packets out."""
        inputs = 1 if isinstance(asked.input, str) else len(asked.input)
        jobs, inbox = await desk.take(inputs, "input", lambda tell: service.encode_jobs(asked, tell))
        packets = await inbox.last_words(jobs, request)
        made = await desk.aside(shapes.latents, packets, asked.bits, asked.norms, service.wire.fingerprint.hex())
        return JSONResponse(made)

    @app.post("/v1/latents/prompt_embeds")
    async def embeds(asked: PromptEmbedsRequest, request: Request) -> Response:
        """A packet in, vLLM's payload out."""
        jobs, inbox = await desk.take(1, "latent", lambda tell: [service.embeds_job(asked, tell)])
        (vectors,) = await inbox.last_words(jobs, request)
        tokens, width = vectors.shape
        facts = {"tokens": tokens, "width": width, "dtype": str(vectors.dtype).removeprefix("torch.")}
        return JSONResponse({"object": "prompt_embeds", "model": asked.model, "data": payload_text(vectors)} | facts)

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, request: Request) -> Response:
        """One question, about latents, a text, or nothing."""
        jobs, inbox = await desk.take(1, "messages", lambda tell: chat_jobs(service, asked, tell))
        return await respond(asked, request, jobs, inbox, shapes.ChatShape(asked.model))

    @app.post("/v1/completions")
    async def completions(asked: CompletionRequest, request: Request) -> Response:
        """One or several questions, each about latents or nothing."""
        count = len(prompts_of(asked))
        jobs, inbox = await desk.take(count, "prompt", lambda tell: completion_jobs(service, asked, tell))
        return await respond(asked, request, jobs, inbox, shapes.TextShape(asked.model))

    async def refused(request: Request, error: Exception) -> Response:
        found = error if isinstance(error, ApiError) else as_api_error(error)
        request.scope["refused"] = found.code
        return refuse(found)

    @app.exception_handler(RequestValidationError)
    async def unreadable(request: Request, error: RequestValidationError) -> Response:
        return await refused(request, of_validation(list(error.errors())))

    @app.exception_handler(HTTPException)
    async def elsewhere(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # a body that no parser could finish, for example one that nests too deeply
            return await refused(request, invalid("the body is not JSON that can be read", code="bad_json"))
        detail = f"{request.method} {request.url.path}: {error.detail}"
        return await refused(request, ApiError(error.status_code, detail, "not_found"))

    @app.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> Response:
        return Response(status_code=499)  # nobody reads it

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(UserError, refused)
    app.add_exception_handler(Exception, refused)
    return Guard(app, service, keys)


async def respond(
    asked: Sampling, request: Request, jobs: Sequence[Job], inbox: Inbox, shape: shapes.Shape
) -> Response:
    """Answers, whole or as a stream."""
    if asked.stream:
        return Stream(jobs, inbox, shape, bool(asked.stream_options and asked.stream_options.include_usage))
    return JSONResponse(shape.whole(await inbox.last_words(jobs, request)))


class Desk:
    """Where requests are prepared, one at a time and beside the event loop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.pool = ThreadPoolExecutor(1, "latentwire-desk")

    async def aside(self, work: Callable[..., Any], *given: Any) -> Any:
        """Do something that takes a while."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, work, *given)

    async def take(
        self, rows: int, param: str, prepare: Callable[[Tell], Sequence[Job]]
    ) -> tuple[Sequence[Job], Inbox]:
        """Promise a request its places, prepare its jobs and let them wait. ApiError: what is wrong with it."""
        if not 0 < rows <= self.service.limits.inputs:
            raise invalid(f"{param} has {rows} entries; 1 to {self.service.limits.inputs} are taken at once", param)
        inbox, engine = Inbox(), self.service.engine
        engine.reserve(rows)
        try:
            jobs = await self.aside(prepare, inbox.tell)
        except BaseException:
            engine.release(rows)
            raise
        engine.submit(list(jobs))
        return jobs, inbox
