"""What docs/serving.md shows is typed here, against a server of the tiny wire (its receivers have the same names)."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from latentwire import Packet
from latentwire.commands.serve import serve
from latentwire.serving.limits import Limits
from serving.conftest import TEXT

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", DOCS, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch, packets):
    (tmp_path / "my.txt").write_text(TEXT, encoding="utf-8")
    packets[0].save(tmp_path / "my.lw", bits=8)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_examples(server, folder, tiny_wire, packets):
    chat, latents = [block for block in blocks("bash") if block.startswith("curl")]
    said = []
    for block in (chat, latents):
        command = ["bash", "-ec", block.replace(ADDRESS, server.url)]
        said.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    sent = Packet.from_bytes(packets[0].to_bytes(8))
    wanted = tiny_wire.receiver("llama").generate(sent, "Who led the expedition?")
    assert said[0]["choices"][0]["message"]["content"] == wanted
    assert said[1]["data"][0]["bits"] == 8 and said[1]["data"][0]["latent"]["data"]


def test_the_client_example(server, folder, capsys, tiny_wire):
    (example,) = blocks("python")
    exec(compile(example.replace(ADDRESS, server.url), "serving.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(name) for line in lines) for name in tiny_wire.receivers)


def test_the_options_and_their_defaults():
    rows = {name: int(value) for name, value in re.findall(r"\| `--([\w-]+)` \| (\d+) \|", DOCS)}
    options = inspect.signature(serve).parameters
    assert len(rows) == 8
    assert rows == {name: options[name.replace("-", "_")].default for name in rows}
    assert Limits() == Limits(
        body=rows["max-body"] << 20, waiting=rows["max-waiting"], batch=rows["max-batch"], inputs=rows["max-inputs"],
        latents=rows["max-latents"], tokens=rows["max-tokens"], prefixes=rows["prefix-cache"] << 20,
    )  # fmt: skip


def test_every_route_is_named(server):
    with server.http as client:
        paths = client.get("/openapi.json").json()["paths"]
    for path in paths:
        assert path.split("{")[0].rstrip("/") in DOCS, path
