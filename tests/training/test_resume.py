"""A training that was killed ends with the same weights as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from latentwire.errors import UserError
from latentwire.training.run import train


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


def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(tiny_config, tmp_path):
    # with Muon for the matrices, AdamW has all the rest: both keep moments
    more = ("steps=14", "optimizer=muon")
    whole = train(tiny_config, more, out=tmp_path / "whole")
    broken = tmp_path / "broken"
    kill_after_a_checkpoint(command(tiny_config, broken, *more), broken)
    assert not (broken / "wire").exists()
    subprocess.run(command(tiny_config, broken, *more), check=True, capture_output=True)
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
    whole = load_file(train(tiny_config, out=tmp_path / "whole") / "model.safetensors")
    train(tiny_config, out=tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1]
    (newest / "wire.safetensors").write_bytes(b"\0" * 100)
    again = load_file(train(tiny_config, out=tmp_path / "run") / "model.safetensors")
    assert "damaged" in caplog.text
    assert all(torch.equal(whole[name], again[name]) for name in whole)
