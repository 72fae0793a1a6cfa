"""``benchmarks/on_gpus.py``: a queue over GPUs, and the commands in it."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = importlib.import_module("on_gpus")
    monkeypatch.setattr(found, "LOOK", 0.02)
    return found


def job(script, name, code="pass", seconds=1, **more):
    return script.Job(name, [[sys.executable, "-c", code]], seconds, **more)


def said(out):
    return [json.loads(line) for line in (out / "times.jsonl").read_text().splitlines()]


def test_jobs_share_gpus_and_several_gpus_wait_for_each_other(script, tmp_path):
    note = "import os,time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(0.3)"
    todo = [
        job(script, "alone", note),
        job(script, "two", note, gpus=2),
        job(script, "half-a", note, share=0.5),
        job(script, "half-b", note, share=0.5),
        job(script, "after", note, share=0.5, after=("half-b",)),
    ]
    queue = script.Queue(todo, {"0": 1.0, "1": 1.0}, tmp_path)
    assert queue.run() == [] and queue.free == {"0": 1.0, "1": 1.0}
    lines = {line["job"]: line for line in said(tmp_path)}
    # one GPU was empty beside `alone`, but `two` was first in line for both
    assert [line["job"] for line in said(tmp_path)][:2] == ["alone", "two"]
    assert lines["two"]["gpus"] == ["1", "0"] or lines["two"]["gpus"] == ["0", "1"]
    assert (tmp_path / "logs" / "two.txt").read_text().strip() in ("0,1", "1,0")
    assert len(lines["half-a"]["gpus"]) == 1 and [line["job"] for line in said(tmp_path)][-1] == "after"


def test_what_fails_is_tried_again_and_what_is_done_is_not(script, tmp_path):
    flag = tmp_path / "flag"
    twice = f"import sys,pathlib; p=pathlib.Path({str(flag)!r}); sys.exit(0 if p.exists() else p.touch() or 'not yet')"
    todo = [job(script, "twice", twice), job(script, "never", "raise SystemExit('no')"),
            job(script, "waits", after=("never",))]  # fmt: skip
    assert script.Queue(todo, {"cpu": 1.0}, tmp_path).run() == ["never", "waits"]
    assert [(line["job"], line["failed"]) for line in said(tmp_path)] == [
        ("twice", "not yet"), ("never", "no"), ("twice", ""), ("never", "no")
    ]  # fmt: skip
    again = script.Queue(todo, {"cpu": 1.0}, tmp_path)
    assert [each.name for each in again.todo] == ["never", "waits"]


def test_nothing_is_begun_that_would_last_too_long(script, tmp_path):
    queue = script.Queue([job(script, "long", seconds=100), job(script, "short")], {"0": 1.0}, tmp_path)
    queue.until = queue.began + 50
    assert queue.run() == ["long"] and queue.late == ["long"]


def test_what_was_left_out_is_not_waited_for(script, tmp_path):
    assert script.Queue([job(script, "b", after=("a",))], {"0": 1.0}, tmp_path).run() == []


def test_names_choose_and_order(script):
    todo = [job(script, name) for name in ("scale-a", "curves-a", "scale-b", "codes")]
    assert [each.name for each in script.chosen(todo, ["codes", "scale"])] == ["codes", "scale-a", "scale-b"]
    assert script.chosen(todo, []) == todo


def test_every_command_is_one_that_its_script_knows(script, tmp_path, capsys):
    assert script.main(["--data-dir", str(tmp_path), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "# curves-middle: 0.25 GPU" in capsys.readouterr().out and not (tmp_path / "out").exists()
    parser = type("Given", (), {"data_dir": str(tmp_path), "out": tmp_path, "wire": "sandbox", "steps": 8, "n": 0})()
    todo = list(script.jobs(parser))
    names = [each.name for each in todo]
    assert len(set(names)) == len(names) and {"methods-lm+soft-tokens", "curves-ratio-32", "history"} <= set(names)
    shared = (BENCHMARKS / "side_by_side.py").read_text()
    for each in todo:
        assert set(each.after) <= set(names)
        for words in each.commands:
            if words[0] == "cp":
                continue
            if words[1] == "-m":
                importlib.import_module(words[2])
                continue
            source = Path(words[1]).read_text()
            for word in words[2:]:
                option = word.replace("--no-", "--")
                assert not word.startswith("--") or f'"{option}"' in source + shared, (each.name, word)
