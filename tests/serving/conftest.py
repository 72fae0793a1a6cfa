"""A server on loopback, in a thread of the test's own process, for the tiny untrained wire."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from openai import OpenAI

from latentwire.serving import answering
from latentwire.serving.limits import Limits
from latentwire.serving.server import listen, make
from latentwire.serving.service import Service

TEXT = "The city has 1,204 inhabitants. The expedition to the South Pole was led by Roald Amundsen."
QUESTION = "Who led the expedition?"


@dataclass
class Running:
    """A server that runs. url: its address."""

    service: Service
    url: str

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def openai(self, key: str = "none", **more: Any) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, timeout=60, **{"max_retries": 0} | more)

    def post(self, path: str, json: Any, **more: Any) -> httpx.Response:
        with self.http as client:
            return client.post(path, json=json, **more)

    def error(self, path: str, json: Any, status: int = 400) -> dict[str, Any]:
        """The error that a request must end in."""
        answer = self.post(path, json)
        assert answer.status_code == status, answer.text
        body = answer.json()
        assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
        return body["error"]


@contextmanager
def running(wire: Any, *, keys: tuple[str, ...] = (), **limits: Any) -> Generator[Running]:
    """A server of ``wire`` that ends with the block, once all it accepted is answered."""
    service = Service(wire, limits=Limits(**limits))
    sock = listen("127.0.0.1", 0)
    server = make(service, keys, grace=30)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield Running(service, f"http://127.0.0.1:{sock.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive() and not service.engine.thread.is_alive()


@pytest.fixture(scope="module")
def server(tiny_wire) -> Iterator[Running]:
    with running(tiny_wire) as found:
        yield found


@pytest.fixture(scope="module")
def packets(tiny_wire) -> list[Any]:
    """A packet of TEXT and one of another, shorter text."""
    return tiny_wire.encode([TEXT, "How many people live there?"], ratio=4)


def part(packet: Any, bits: int = 16) -> dict[str, Any]:
    """A packet as a part of a prompt."""
    return {"type": "latent", "latent": {"data": base64.b64encode(packet.to_bytes(bits)).decode(), "format": "lw1"}}


def asked(packet: Any, question: str = QUESTION, model: str = "llama", **more: Any) -> dict[str, Any]:
    """The body of a chat about a packet."""
    content = [part(packet), {"type": "text", "text": question}]
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


class Gate:
    """Holds the engine in front of each batch (``before``) and of each step (``step``), until opened."""

    def __init__(self) -> None:
        self.before, self.step, self.reached = threading.Event(), threading.Event(), threading.Semaphore(0)

    def open(self) -> None:
        self.before.set()
        self.step.set()


@pytest.fixture
def gate(monkeypatch) -> Iterator[Gate]:
    held, steps = Gate(), answering.steps

    def gated(*given: Any, **named: Any) -> Iterator[dict[int, int]]:
        held.reached.release()
        assert held.before.wait(60)
        for said in steps(*given, **named):
            yield said
            assert held.step.wait(60)

    monkeypatch.setattr(answering, "steps", gated)
    yield held
    held.open()


def until(true: Any, seconds: float = 30) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
