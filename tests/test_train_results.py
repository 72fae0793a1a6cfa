"""``benchmarks/train_results.py`` and ``evaluate_all.py``: commands that can be parsed, steps that are done once."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
from pathlib import Path

import pytest

from latentwire.config import load
from latentwire.training.check import check
from latentwire.training.config import TrainConfig

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def chain(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("train_results")


@pytest.fixture
def sheets(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("evaluate_all")


def test_every_training_command_of_the_chain_is_a_config(chain, tmp_path, capsys):
    assert chain.main(["--data-dir", str(tmp_path), "--out", str(tmp_path / "out"), "--dry-run", "--runs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not (tmp_path / "out").exists()
    said = [shlex.split(line) for line in lines]
    trained = [words[4:] for words in said if words[1:4] == ["-m", "latentwire", "train"]]
    assert len(trained) == 5
    for config, *words in trained:
        overrides = [word for word in words if "=" in word]
        tree = load(config, TrainConfig, overrides)
        check(tree)
        assert tree.corpus.seed == 0 and tree.corpus.written == 82_000
    steps = [line[2:] for line in lines if line.startswith("# ")]
    assert steps == ["asker", "asking", "stores", "wires", "mean", "rounded", "join", "final", "shipped", "evaluated"]


def test_a_step_that_is_there_is_not_done_again(chain, tmp_path, monkeypatch, capsys):
    done = tmp_path / "done"
    say = [sys.executable, "-c", f"from pathlib import Path; Path({str(done)!r}).write_text('x')"]
    fails = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    todo = [chain.Step("one", [say], [done]), chain.Step("two", [say, fails], [tmp_path / "never"])]
    monkeypatch.setattr(chain, "steps", lambda *_: iter(todo))
    (tmp_path / "data").mkdir()
    command = ["--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert chain.main([*command, "--until", "one"]) == 0 and done.read_text() == "x"
    assert chain.main(command) == 1
    said = capsys.readouterr()
    assert "one: there" in said.out and "two-1.txt: no such thing" in said.err


def test_data_is_seen_through_links_and_left_alone(chain, tmp_path):
    data = tmp_path / "data"
    (data / "squad").mkdir(parents=True)
    (data / "written").mkdir()
    folder = chain.view(data, tmp_path / "out")
    assert (folder / "squad").is_dir() and not (folder / "written").exists()
    assert chain.view(data, tmp_path / "out") == folder


def all_rows(tmp_path, **given):
    """A command line that leaves nothing out but what is given."""
    none = {"only": [], "receivers": [], "conditions": [], "ratios": [], "bits": "", "n": 0, "nq": ""}
    return argparse.Namespace(**none | {"wire": "sandbox", "out": tmp_path} | given)


def test_text_and_nothing_are_measured_once(sheets, tmp_path):
    given = all_rows(tmp_path, nq="nq.jsonl")
    todo = sheets.jobs(given)
    assert todo.keys() == sheets.SHEETS.keys()
    folders = {job.folder for own in todo.values() for job in own}
    text = [folder for folder in folders if "text-none" in folder]
    assert len(text) == 6  # three receivers on squad/valid, three on nq/valid
    assert all(job.mode == "context" and not job.slots for own in todo.values() for job in own if job.folder in text)
    # every quoted file is made of rows that it quotes
    for name, own in todo.items():
        path = BENCHMARKS / "results" / name
        if path.is_file():
            quoted = {(r["receiver"], r["condition"], r["ratio"]) for r in json.loads(path.read_text())["rows"]}
            made = {
                (job.receiver, condition, None if condition in ("text", "none") else ratio)
                for job in own for condition in job.conditions.split(",") for ratio in job.ratios
            }  # fmt: skip
            assert quoted <= made, f"{name} quotes rows that are not measured"


def test_nq_is_left_out_without_its_file(sheets, tmp_path):
    given = all_rows(tmp_path, receivers=["gpt2"])
    todo = sheets.jobs(given)
    assert "nq-valid.json" not in todo
    assert {job.receiver for own in todo.values() for job in own} == {"gpt2"}


def test_some_of_the_rows_can_be_named(sheets, tmp_path):
    given = all_rows(tmp_path, only=["sandbox-full.json"], conditions=["latents"], ratios=[4, 8], bits="16")
    jobs = sheets.jobs(given)["sandbox-full.json"]
    asked = {(job.receiver, job.conditions, job.ratios) for job in jobs if job.conditions != "text,none"}
    assert asked == {(name, "latents", (ratio,)) for name in ("llama", "qwen2") for ratio in (4, 8)}
    assert {job.bits for job in jobs} == {"16"}
