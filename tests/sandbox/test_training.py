"""The training command at tiny size: it runs, survives a kill, and says what is wrong."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from latentwire.errors import UserError
from latentwire.sandbox import receivers
from latentwire.sandbox.schedule import Clock, Phase

CONFIGS = Path(__file__).parents[2] / "configs" / "sandbox" / "readers"
SMALL = (
    "shape={family: llama, vocabulary: 12000, width: 16, layers: 1, heads: 2, kv_heads: 2,"
    " head_width: 8, ff: 24, positions: 512}",
    "row=256",
    "batch=2",
    "workers=1",
    "made_every=1",
    "language={steps: 8, warmup: 2, flat: 0.5, end: 0.5}",
    "questions={steps: 6, start: 0.5}",
    "log_every=2",
    "device=cpu",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)
    (folder / "text").mkdir()
    (folder / "squad").mkdir()
    places = ["Lisbon", "Kraków", "Nairobi", "Quito", "Osaka", "Bergen"]
    with (folder / "text" / "some.jsonl").open("w", encoding="utf-8") as file:
        for number in range(40):
            here, year = rng.choice(places), rng.randint(1800, 1999)
            text = f"The {here} Museum was founded in {year} by the council of {here}. It shows maps of the city. "
            text += f"In {year} the first keeper of the {here} Museum came from Vienna. Many visitors come in summer. "
            text += f"The maps were drawn by Anna Berg and given to {here} after {year}. The building has 12 rooms."
            file.write(json.dumps({"title": f"Museum {number}", "text": text + "\n" + text}) + "\n")
    with (folder / "squad" / "train.jsonl").open("w", encoding="utf-8") as file:
        for number in range(30):
            row = {
                "id": f"squad_v1-train-Art_{number}-0-0",
                "context": f"Nr {number} stands in {rng.choice(places)} today.",
            }
            file.write(json.dumps(row | {"question": "Which number stands there?", "answers": [str(number)]}) + "\n")
    return folder


def command(data, out, *more):
    return [str(CONFIGS / "llama.yaml"), *SMALL, f"out={out}", *more, "--data-dir", str(data)]


def final(out):
    return load_file(out / "llama" / "checkpoint" / "model.safetensors")


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    receivers.main(command(data, out))
    return out


def test_the_command_makes_a_reader(unbroken):
    lines = [json.loads(line) for line in (unbroken / "llama" / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["language"] * 4 + ["questions"] * 3
    assert all(line["skipped"] == 0 for line in lines)
    assert lines[0]["rate"] > lines[-1]["rate"]
    assert any("answer" in line for line in lines[:4]), "made questions are mixed into the language phase"
    assert (unbroken / "llama" / "packed" / "manifest.json").exists()


def test_killed_and_resumed_ends_with_the_same_weights(data, unbroken, tmp_path):
    script = (
        "import os, signal, sys\n"
        "from latentwire.sandbox import receivers\n"
        "save = receivers.Run.save\n"
        "def save_then_die(run, feed):\n"
        "    save(run, feed)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "receivers.Run.save = save_then_die\n"
        "receivers.main(sys.argv[1:])\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, *command(data, tmp_path, "save_minutes=0")], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "llama" / "checkpoint").exists()
    receivers.main(command(data, tmp_path, "save_minutes=0"))
    one, two = final(unbroken), final(tmp_path)
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)


def test_it_goes_on_from_a_checkpoint(data, unbroken, tmp_path):
    receivers.main(command(data, tmp_path, f"start={unbroken / 'llama' / 'checkpoint'}"))
    before, after = final(unbroken), final(tmp_path)
    moved = max((before[name] - after[name]).abs().max().item() for name in before)
    assert 0 < moved < 0.5


def test_another_config_is_refused(data, unbroken, capsys):
    with pytest.raises(SystemExit, match="another config"):
        receivers.main(command(data, unbroken, "rate=0.001"))


def test_missing_text_is_named(tmp_path):
    (tmp_path / "text").mkdir()
    with pytest.raises(SystemExit, match="no text under"):
        receivers.main(command(tmp_path, tmp_path / "out", "shipped_tokenizer=false"))


def test_a_phase_needs_a_length():
    with pytest.raises(UserError, match="neither steps nor minutes"):
        Clock({"language": Phase(minutes=0.0)})


def test_minutes_become_steps(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("latentwire.sandbox.schedule.time.monotonic", lambda: now[0])
    clock = Clock({"a": Phase(minutes=1.0), "b": Phase(steps=3)})
    clock.start()
    while clock.phase == "a":
        now[0] += 0.5
        if (clock.step + 1) % 10 == 0 or clock.last:
            clock.measure()
        clock.advance()
    assert now[0] == pytest.approx(60.0, abs=1.0)
    assert clock.count == pytest.approx(120, abs=2)
