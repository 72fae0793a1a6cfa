"""``benchmarks/again.py``: what is quoted is measured again, on the first questions, and what differs is told."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from latentwire.data.rows import draw, read_examples
from latentwire.data.squad import shipped_valid
from latentwire.evaluation.runner import evaluate

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("again")


def test_it_finds_what_readme_quotes_and_knows_it_on_the_first_questions(script):
    first = json.loads(script.FIRST.read_text())
    assert "sandbox-full.json" in script.quoted()
    for name in script.quoted():
        whole = json.loads((script.RESULTS / name).read_text())
        assert first[name]["encoder"] == whole["wire"]["encoder"], f"{name}: run python benchmarks/again.py --keep"
        keys = {script.key_of(row) for row in whole["rows"]}
        kept = {script.key_of(row) for row in first[name]["rows"]}
        # answers of every row of latents at 16 bits were kept, so that these are met question by question
        assert kept <= keys
        assert {key for row in whole["rows"] if row["condition"] == "latents" and row["bits"] == 16
                for key in [script.key_of(row)]} <= kept  # fmt: skip


@pytest.mark.slow
def test_a_wire_is_measured_again_and_a_figure_that_is_not_met_is_told(script, tiny_wire, tmp_path, monkeypatch):
    tiny_wire.save_pretrained(tmp_path / "wire")
    examples = draw(read_examples(shipped_valid()), 5, 0)
    whole = tmp_path / "whole"
    evaluate(
        tiny_wire, examples, (4,), (16, 8), ["text", "none", "latents", "zero"], ["llama"], out=whole, progress=False
    )
    monkeypatch.setattr(script, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(script, "FIRST", tmp_path / "results" / "first.json")
    (tmp_path / "results").mkdir()
    shutil.copy(whole / "results.json", tmp_path / "results" / "some.json")
    monkeypatch.setattr(script, "quoted", lambda: ["some.json"])
    monkeypatch.chdir(tmp_path)

    def call(*more: str) -> None:
        monkeypatch.setattr(sys, "argv", ["again.py", *more])
        script.main()

    call("--keep", f"some.json={whole}", "--n", "3")
    call("--wire", str(tmp_path / "wire"))
    first = json.loads(script.FIRST.read_text())
    assert first["n"] == 3 and len(first["some.json"]["rows"]) == 5
    first["some.json"]["rows"][2]["f1"] += 0.5
    script.FIRST.write_text(json.dumps(first))

    def here(words, **_):  # its process again, in this one
        call(*words[2:])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(script.subprocess, "run", here)
    with pytest.raises(SystemExit, match="1 figures are further"):
        call("--wire", str(tmp_path / "wire"))


def test_questions_that_were_drawn_are_drawn_again(script):
    everything = read_examples(shipped_valid())
    ids = [example.id for example in script.asked({"data": {"n": 20}, "seed": 3}, 5)]
    assert ids == [example.id for example in draw(everything, 20, 3)[:5]] != [e.id for e in everything[:5]]
    assert script.asked({"data": {"n": len(everything)}, "seed": 3}, 5) == everything[:5]
