"""Batches, a queue with an end, and clients that leave."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contracts.matrix import INJECTIONS, config
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.injections import InjectionConfig
from latentwire.link import LinkConfig
from latentwire.receivers import decode
from latentwire.serving import answering
from latentwire.serving.engine import Engine, Job
from latentwire.serving.errors import ApiError
from latentwire.serving.limits import Limits
from latentwire.serving.metrics import Metrics
from latentwire.wire import Wire, WireConfig
from serving.conftest import QUESTION, TEXT, asked, running, until


class Sum(Job):
    """A job that gives its number, or breaks."""

    def __init__(self, number: int, key: str = "one", size: int = 1, tell=None) -> None:
        super().__init__(tell=tell or self.keep)
        self.number, self.name, self.wide, self.event = number, key, size, None

    key = property(lambda self: self.name)
    size = property(lambda self: self.wide)
    seen: list[list[int]]

    def keep(self, event) -> None:
        self.event = event

    @classmethod
    def run(cls, jobs, metrics):
        cls.seen.append([job.number for job in jobs])
        if any(job.number < 0 for job in jobs):
            raise ValueError("a bad row")
        for job in jobs:
            job.say(job.number)


def done(jobs: list[Sum], **limits) -> list[list[int]]:
    """Which jobs were done together."""
    Sum.seen = []
    engine = Engine(Limits(**limits), Metrics())
    engine.reserve(len(jobs))
    engine.submit(jobs)
    engine.start()
    engine.close()
    return Sum.seen


def test_what_waits_together_is_done_together_in_its_order():
    jobs = [Sum(number, "ab"[number % 3 == 0]) for number in range(8)]
    assert done(jobs) == [[0, 3, 6], [1, 2, 4, 5, 7]]
    assert [job.event for job in jobs] == list(range(8))


def test_a_batch_has_an_end():
    assert done([Sum(number) for number in range(5)], batch=2) == [[0, 1], [2, 3], [4]]


def test_a_long_context_does_not_widen_a_batch_beyond_its_bound():
    jobs = [Sum(0, size=10), Sum(1, size=10), Sum(2, size=50), Sum(3, size=10)]
    assert done(jobs, positions=60) == [[0, 1, 3], [2]]
    assert done([Sum(0, size=500)], positions=60) == [[0]], "one alone is always done"


def test_one_bad_row_does_not_take_its_neighbours_with_it():
    jobs = [Sum(1), Sum(-1), Sum(2)]
    assert done(jobs) == [[1, -1, 2], [1], [-1], [2]]
    assert [jobs[0].event, jobs[2].event] == [1, 2]
    assert isinstance(jobs[1].event, ApiError) and jobs[1].event.status == 500
    assert "bad row" not in jobs[1].event.message, "what went wrong inside is for the log"


def test_jobs_of_clients_that_left_are_not_begun():
    jobs = [Sum(0), Sum(1)]
    jobs[0].gone = True
    assert done(jobs) == [[1]]


def test_the_queue_is_bounded_and_promises_count():
    engine = Engine(Limits(waiting=3), Metrics())
    engine.reserve(2)
    with pytest.raises(ApiError) as refused:
        engine.reserve(2)
    assert refused.value.status == 429 and refused.value.headers["Retry-After"]
    engine.release(1)
    engine.reserve(2)
    assert engine.depth == 3


def test_nothing_is_promised_once_it_closes():
    engine = Engine(Limits(), Metrics())
    engine.start()
    engine.close()
    with pytest.raises(ApiError) as refused:
        engine.reserve(1)
    assert refused.value.status == 503


def test_a_full_queue_is_said_at_once_and_the_client_tries_again(tiny_wire, packets, gate):
    with running(tiny_wire, waiting=2, batch=1) as server, ThreadPoolExecutor(8) as pool:
        ask = server.openai().chat.completions.create
        first = pool.submit(ask, **asked(packets[0]))
        assert gate.reached.acquire(timeout=30)
        waiting = [pool.submit(ask, **asked(packets[0], f"{QUESTION} {number}")) for number in range(2)]
        until(lambda: server.service.engine.depth == 2)
        answer = server.post("/v1/chat/completions", asked(packets[0]))
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["code"] == "queue_full"
        with pytest.raises(openai.RateLimitError):
            ask(**asked(packets[0]))
        patient = pool.submit(server.openai(max_retries=5).chat.completions.create, **asked(packets[0]))
        gate.open()
        assert all(each.result(60).choices[0].message.content for each in (first, *waiting, patient))


def test_a_client_that_leaves_mid_stream_frees_its_row(tiny_wire, packets, gate):
    with running(tiny_wire, linger=0.2) as server:
        gate.before.set()
        gone = server.service.metrics.gone
        with (
            ThreadPoolExecutor(1) as pool,
            server.http as client,
            client.stream(
                "POST", "/v1/chat/completions", json=asked(packets[0], stream=True, max_tokens=200)
            ) as stream,
        ):
            stays = pool.submit(server.post, "/v1/chat/completions", asked(packets[0], max_tokens=6))
            lines = stream.iter_lines()
            assert json.loads(next(lines).removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
            assert gate.reached.acquire(timeout=30)
            stream.close()
            # the server notices while the engine stands still; then its row leaves at the next step
            until(lambda: "499" not in str(gone.values) and all_gone(server))
            gate.open()
            assert stays.result(60).json()["choices"][0]["finish_reason"] in ("stop", "length")
        until(lambda: gone.values[()] == 1)
        written = server.service.metrics.tokens.values[("written",)]
        assert written <= 6, "the row of the client that left was written on"


def all_gone(server) -> bool:
    """The stream's request has ended, as the server sees it."""
    return any(route.startswith("/v1/chat") for route, _ in server.service.metrics.requests.values)


def test_a_client_that_leaves_while_it_waits_is_never_begun(tiny_wire, packets, gate):
    with running(tiny_wire, batch=1) as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.post, "/v1/chat/completions", asked(packets[0]))
        assert gate.reached.acquire(timeout=30)
        with pytest.raises(httpx.TimeoutException):
            server.post("/v1/chat/completions", asked(packets[0]), timeout=0.3)
        until(lambda: any(job.gone for job in server.service.engine.jobs))
        gate.open()
        assert first.result(60).status_code == 200
        until(lambda: server.service.engine.depth == 0)
        assert server.service.metrics.gone.values[()] == 1
        assert not gate.reached.acquire(blocking=False), "a batch was begun for nobody"


def test_a_stream_that_breaks_says_so(tiny_wire, packets, monkeypatch):
    steps = answering.steps

    def breaking(*given):
        yield next(steps(*given))
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(answering, "steps", breaking)
    with running(tiny_wire) as server:
        with pytest.raises(openai.APIError, match="the server failed"):
            list(server.openai().chat.completions.create(**asked(packets[0], stream=True)))
        monkeypatch.setattr(answering, "steps", steps)
        assert server.post("/v1/chat/completions", asked(packets[0])).status_code == 200, "the engine goes on"


def test_the_end_of_a_server_waits_for_what_it_accepted(tiny_wire, packets, gate):
    with ThreadPoolExecutor(6) as pool:
        with running(tiny_wire, batch=2, linger=0.5) as server:
            asking = [pool.submit(server.post, "/v1/chat/completions", asked(packets[0])) for _ in range(6)]
            assert gate.reached.acquire(timeout=30)  # two are being answered, so four that wait are all
            until(lambda: server.service.engine.depth == 4)
            threading.Timer(0.5, gate.open).start()
        assert [each.result(60).status_code for each in asking] == [200] * 6


@pytest.mark.parametrize("injection", [name for name in INJECTIONS if name in InjectionConfig.known()])
def test_contexts_of_any_length_share_a_batch(tiny_readers, injection):
    """Whatever injects: rows of other lengths, kinds of reading and sampling change nothing in a row."""
    torch.manual_seed(0)
    links = {
        "llama": LinkConfig(
            receiver=str(tiny_readers["llama"]), injection=config(InjectionConfig, injection, tiny_readers)
        )
    }
    encoder = LMEncoderConfig(d_z=16, ratios=(4,), window=64, init=str(tiny_readers["llama"]))
    wire = Wire.create(WireConfig(encoder, links), [TEXT, TEXT[:40]]).eval()
    packets = wire.encode([TEXT[: 8 * length] for length in (9, 1, 3, 9, 2)], 4)
    receiver = wire.get_receiver("llama")
    questions = [f"Who is number {number}?" for number in range(len(packets))]
    said: dict[int, Any] = {}
    jobs = [
        answering.AnswerJob(
            tell=lambda event, number=number: said.update({number: event}), wire=wire, receiver="llama", packet=packet,
            tail=receiver.prompt.question_ids([question])[0], most=6 + number, temperature=number % 2, seed=number,
        )
        for number, (packet, question) in enumerate(zip(packets, questions, strict=True))
    ]  # fmt: skip
    answering.AnswerJob.run(jobs, Metrics())
    for number, (packet, question) in enumerate(zip(packets, questions, strict=True)):
        wanted = wire.receiver("llama").generate(packet, question, 6 + number, number % 2, number)
        assert said[number].text == wanted, number
        held: Any = wire.links["llama"].injection
        assert said[number].context == int(held.kv_positions(torch.tensor(len(packet.z_MD))))
    assert len(decode.alike(sorted(job.size for job in jobs))) > 1


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_what_is_read_together_is_hardly_padded(sizes):
    sizes = sorted(sizes)
    runs = decode.alike(sizes)
    assert [place for start, end in runs for place in range(start, end)] == list(range(len(sizes)))
    for start, end in runs:
        assert end - start == 1 or (end - start) * sizes[end - 1] <= decode.PADDED * sum(sizes[start:end])
