"""``latentwire serve`` as a process: what it says, keys from the environment, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from latentwire import cli
from latentwire.commands import serve as command
from latentwire.serving.server import listen
from serving.conftest import Running, asked, until


@pytest.fixture(scope="module")
def saved(tiny_wire, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wire")
    tiny_wire.save_pretrained(folder)
    return folder


@contextmanager
def process(saved, *options: str, **env: str) -> Generator[tuple[subprocess.Popen, Running]]:
    """A server as a person starts it, once it listens."""
    started = subprocess.Popen(
        [sys.executable, "-m", "latentwire", "serve", str(saved), "--port", "0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env},
    )  # fmt: skip
    try:
        assert started.stdout is not None and started.stderr is not None
        first = started.stdout.readline()
        assert "models llama, qwen2" in first, started.stderr.read()
        yield started, Running(None, first.split(" on ")[1].split(",")[0])
    finally:
        started.kill()
        started.communicate()


def test_sigterm_under_load_loses_nothing_that_was_accepted(saved, tiny_wire, packets):
    def whole(number: int) -> str:
        answer = client.chat.completions.create(**asked(packets[0], f"Number {number}?", max_tokens=100))
        return answer.choices[0].message.content

    def streamed(number: int) -> str:
        chunks = client.chat.completions.create(**asked(packets[0], f"Number {number}?", max_tokens=100), stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    def accepted() -> float:
        """Those that wait, and those that were begun: one is a batch here."""
        lines = httpx.get(f"{server.url}/metrics", timeout=30).text.splitlines()
        counts = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        begun = counts.get('latentwire_batch_rows_count{work="answer"}', 0)
        return float(counts["latentwire_queue_depth"]) + float(begun)

    with process(saved, "--max-batch", "1") as (started, server), ThreadPoolExecutor(8) as pool:
        # one client that is ready: eight that are made first would not come together on a slow machine
        client = server.openai()
        asking = [pool.submit((whole, streamed)[number % 2], number) for number in range(8)]
        until(lambda: accepted() == 8)
        started.send_signal(signal.SIGTERM)
        reading = tiny_wire.receiver("llama")
        wanted = [reading.generate(packets[0], f"Number {number}?", max_new_tokens=100) for number in range(8)]
        assert [each.result(60) for each in asking] == wanted
        assert started.wait(30) == 0
        assert started.stderr.read() == ""
        with pytest.raises(httpx.ConnectError):
            accepted()


def test_keys_come_from_the_environment_and_ctrl_c_ends_it_without_a_traceback(saved, packets):
    with process(saved, LATENTWIRE_API_KEYS="one, two") as (started, server):
        assert server.post("/v1/chat/completions", asked(packets[0])).status_code == 401
        for key in ("one", "two"):
            assert server.openai(key).chat.completions.create(**asked(packets[0], max_tokens=2)).choices
        started.send_signal(signal.SIGINT)
        assert started.wait(30) == 0
        assert started.stderr.read() == ""


def refusal(capsys, *argv: str) -> str:
    assert cli.main(["serve", *argv]) == 2
    return capsys.readouterr().err


def test_a_port_that_is_taken(saved, capsys):
    with listen("127.0.0.1", 0) as taken:
        assert "--port" in refusal(capsys, str(saved), "--port", str(taken.getsockname()[1]))


def test_a_receiver_that_the_wire_has_not(saved, capsys):
    assert "llama, qwen2" in refusal(capsys, str(saved), "--receiver", "gpt-4")


def test_a_device_that_is_not_there(saved, capsys):
    assert "--device" in refusal(capsys, str(saved), "--device", "abacus")


def test_an_empty_key_is_no_key(saved, capsys):
    assert "--api-key" in refusal(capsys, str(saved), "--api-key", "")


def test_without_the_extra_its_name_is_said(saved, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "latentwire.serving.server", raising=False)
    assert "pip install 'latentwire[serve]'" in refusal(capsys, str(saved))
    assert command.KEYS == "LATENTWIRE_API_KEYS"


def test_graphs_without_a_gpu_are_said_to_do_nothing(saved, monkeypatch, capsys):
    served = []
    monkeypatch.setattr("latentwire.serving.server.run", lambda service, *_: served.append(service))
    assert cli.main(["serve", str(saved), "--graphs", "--device", "cpu", "-r", "llama"]) == 0
    assert "warning: --graphs needs one GPU and plain weights; llama decodes" in capsys.readouterr().err
    assert served[0].wire.get_receiver("llama").recorded is not None
