"""A training that was killed ends with the same weights as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from latentwire.cli import main
from latentwire.config import load, save
from latentwire.errors import UserError
from latentwire.training import checkpoint
from latentwire.training.config import TrainConfig
from latentwire.training.journal import Journal
from latentwire.training.loop import Loop
from latentwire.training.run import train
from latentwire.training.stopping import Stopping


def command(config: Path, out: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "latentwire.cli", "train", str(config), *overrides, "--out", str(out)]


def kill_after_a_checkpoint(argv: list[str], out: Path) -> None:
    """``kill -9`` as soon as a checkpoint is there and the run has gone on."""
    log = out / "metrics.jsonl"
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(6000):
            time.sleep(0.01)
            saved = sorted((out / "checkpoints").glob("step-*"))
            lines = log.read_text().splitlines() if log.is_file() else []
            if saved and len(lines) > int(saved[-1].name.removeprefix("step-")):
                break
            assert process.poll() is None, "the run ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(tiny_config, tmp_path):
    # with Muon for the matrices, AdamW has all the rest: both keep moments
    more = ("steps=14", "optimizer=muon")
    whole = train(tiny_config, more, out=tmp_path / "whole")
    broken = tmp_path / "broken"
    kill_after_a_checkpoint(command(tiny_config, broken, *more), broken)
    assert not (broken / "wire").exists()
    train(tiny_config, more, out=broken)
    expected, got = load_file(whole / "model.safetensors"), load_file(broken / "wire" / "model.safetensors")
    assert expected.keys() == got.keys()
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []
    steps = [json.loads(line)["step"] for line in (broken / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 14 and set(range(1, 15)) <= set(steps)
    begun = [json.loads(line) for line in (broken / "environment.jsonl").read_text().splitlines()]
    assert len(begun) == 2 and begun[0]["time"] <= begun[1]["time"]
    assert all(line["device"] == "cpu" and line["versions"]["torch"] == torch.__version__ for line in begun)


def test_a_folder_with_a_run_of_another_config_is_refused(tiny_config, tmp_path):
    train(tiny_config, ["steps=1"], out=tmp_path / "run")
    with pytest.raises(UserError, match="another config"):
        train(tiny_config, ["steps=1", "seed=5"], out=tmp_path / "run")


def test_a_damaged_checkpoint_is_passed_over(tiny_config, tmp_path, caplog):
    whole = load_file(train(tiny_config, out=tmp_path / "run") / "model.safetensors")
    newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1]
    (newest / "wire.safetensors").write_bytes(b"\0" * 100)
    again = load_file(train(tiny_config, out=tmp_path / "run") / "model.safetensors")
    assert "damaged" in caplog.text
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_run_that_is_told_to_stop_saves_first_and_ends_as_an_unbroken_one(tiny_config, tmp_path, monkeypatch, caplog):
    more = ("steps=6", "save_every=0")
    whole = load_file(train(tiny_config, more, out=tmp_path / "whole") / "model.safetensors")
    advance, handler = Loop.advance, signal.getsignal(signal.SIGTERM)

    def told(loop: Loop):
        left = advance(loop)
        if loop.progress.step == 4:
            signal.raise_signal(signal.SIGTERM)
        return left

    monkeypatch.setattr(Loop, "advance", told)
    out = tmp_path / "told"
    assert main(["train", str(tiny_config), *more, "--out", str(out)]) == 143
    assert "saved at step 4; the same command goes on from there" in caplog.text
    assert [kept.name for kept in (out / "checkpoints").iterdir()] == ["step-0000004"]
    assert signal.getsignal(signal.SIGTERM) == handler
    monkeypatch.setattr(Loop, "advance", advance)
    again = load_file(train(tiny_config, more, out=out) / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_second_signal_is_obeyed_at_once():
    with pytest.raises(SystemExit) as stop, Stopping() as stopping:
        signal.raise_signal(signal.SIGTERM)
        assert stopping.asked
        signal.raise_signal(signal.SIGTERM)
    assert stop.value.code == 143


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tiny_config, tmp_path, monkeypatch, caplog):
    plain, left = checkpoint.save_file, {"room": 0}

    def save_file(tensors, path):
        if left["room"] <= len(list((tmp_path / "run" / "checkpoints").glob("step-*"))):
            path.write_bytes(b"half of")
            raise SafetensorError("I/O error: No space left on device")
        plain(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    config = ("steps=3", "save_every=1", "eval_every=0")
    with pytest.raises(OSError, match="No space left"):  # the last one: without it, there is nothing to go on from
        train(tiny_config, config, out=tmp_path / "run")
    assert "step 1 was not saved (I/O error: No space left on device); the run goes on" in caplog.text
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    left["room"] = 2
    train(tiny_config, config, out=tmp_path / "run")
    assert "trying again without step-0000001" in caplog.text
    # the last step is written twice, and each time something had to go
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-0000003"]


def test_a_journal_that_cannot_be_written_is_told_once(tmp_path, monkeypatch, caplog):
    journal = Journal(tmp_path, 0, main=True)
    monkeypatch.setattr(Path, "open", lambda *_, **__: (_ for _ in ()).throw(OSError("No space left on device")))
    journal.metrics({"step": 1})
    journal.metrics({"step": 2})
    assert caplog.text.count("cannot be written (No space left on device); the run goes on without") == 1


def test_a_folder_of_damaged_checkpoints_is_not_started_over_unasked(tmp_path):
    part = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(part.parameters())
    assert checkpoint.load(tmp_path, part, optimizer) is None
    for number in (1, 2):
        folder = checkpoint.save(tmp_path, part, optimizer.state_dict(), checkpoint.Progress(step=number))
        (folder / "wire.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole; --no-resume starts over"):
        checkpoint.load(tmp_path, part, optimizer)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_error_that_is_no_full_disk_costs_no_checkpoint(tmp_path, monkeypatch):
    part = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(part.parameters())
    for number in (1, 2):
        checkpoint.save(tmp_path, part, optimizer.state_dict(), checkpoint.Progress(step=number))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        checkpoint.save(tmp_path, part, optimizer.state_dict(), checkpoint.Progress(step=3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000001", "step-0000002"]


def test_a_config_is_read_whole_while_another_process_writes_it(tiny_config, tmp_path):
    """Processes of one run write the same config into its folder, and each looks at what is there."""
    config, path = load(tiny_config, TrainConfig), tmp_path / "config.yaml"
    save(config, path)
    over = threading.Event()

    def again() -> None:
        while not over.is_set():
            save(config, path)

    writer = threading.Thread(target=again)
    writer.start()
    try:
        assert all(load(path, TrainConfig) == config for _ in range(40))
    finally:
        over.set()
        writer.join()
    assert [each.name for each in tmp_path.iterdir() if each.is_file() and "config" in each.name] == ["config.yaml"]
