"""``benchmarks/methods.py``: every method takes part, a finished run is kept, the table holds what was found."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from latentwire.encoders import EncoderConfig
from latentwire.errors import UserError
from latentwire.injections import InjectionConfig

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("methods")


def test_every_method_takes_part_and_is_given_the_same_budget(script, tmp_path):
    given = script.arguments(["--out", str(tmp_path), "--steps", "7", "--set", "byte.width=64"])
    jobs = [job for _, job in script.jobs(given)]
    pairs = [(job["facts"]["encoder"], job["facts"]["injection"]) for job in jobs]
    assert len(pairs) == len(set(pairs))
    assert {e for e, i in pairs if i == "kv-prefix"} == {e for e, i in pairs if i == "soft-tokens"}
    assert {e for e, _ in pairs} == set(EncoderConfig.known())
    assert {i for e, i in pairs if e == "lm"} == set(InjectionConfig.known())
    assert {job["config"]["steps"] for job in jobs} == {7}
    assert [job["references"] for job in jobs] == [True] + [False] * (len(jobs) - 1)
    byte = next(job["config"] for job in jobs if job["facts"]["encoder"] == "byte")
    assert byte["wire"]["encoder"] == {
        "type": "byte", "width": 64, "d_z": 256, "ratios": [16], "window": 1024,
    }  # fmt: skip
    assert byte["corpus"]["longest"] == 1024, "as long a text as for an encoder that counts in tokens"
    with pytest.raises(UserError, match="no run 'lm'"):
        script.selected(list(script.jobs(given)), ["lm"])


@pytest.fixture
def side(script):
    return importlib.import_module("side_by_side")


def here(side):
    """Do the work of a run's process in this one: starting three takes most of the time."""

    def run(command, **_):
        assert command[:2] == [sys.executable, side.__file__]
        side.work(Path(command[2]))
        return SimpleNamespace(returncode=0)

    return run


def test_a_smoke_run_measures_two_methods_once(script, side, tiny_readers, tmp_path, monkeypatch, capsys):
    readers = [f"{name}={tiny_readers[name]}" for name in ("llama", "qwen2")]
    asked = ["--smoke", "--out", str(tmp_path), "--only", "lm+kv-prefix", "byte+soft-tokens", "--reader", *readers]
    monkeypatch.setattr(side.subprocess, "run", here(side))
    assert script.main(asked) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "methods.json").read_text())
    assert {(run["encoder"], run["injection"]) for run in found["runs"]} == {
        ("lm", "kv-prefix"),
        ("byte", "soft-tokens"),
    }
    for run in found["runs"]:
        assert run["steps"] == 2
        assert [(row["receiver"], row["condition"]) for row in run["rows"]] == [
            ("llama", "latents"),
            ("qwen2", "latents"),
        ]
        assert all(row["f1_ci"][0] <= row["f1"] <= row["f1_ci"][1] for row in run["rows"])
    given = [(row["receiver"], row["condition"]) for row in found["references"]]
    assert sorted(given) == [(name, condition) for name in ("llama", "qwen2") for condition in ("none", "text")]
    assert found["versions"]["torch"] and found["device"] == ["cpu"] and found["n"] == [4] and not found["failed"]
    assert "`byte`" in printed and "| full text |" in printed
    again = script.arguments(asked)
    script.smoke(again)
    monkeypatch.setattr(side.subprocess, "run", lambda *_, **__: pytest.fail("a finished run was repeated"))
    chosen = script.selected(list(script.jobs(again)), again.only)
    assert [side.run_one(folder, job) for folder, job in chosen] == [None, None]
    whole = script.gathered(list(script.jobs(again)), {}, again)
    assert whole["runs"] == found["runs"], "what was measured earlier stays in the file"


def test_a_run_that_fails_is_told_without_the_paths_of_a_machine(side, tmp_path, monkeypatch):
    def fail(command, stdout, **_):
        stdout.write("Traceback\nOSError: there is no file /somewhere/deep/weights.bin here\n")
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(side.subprocess, "run", fail)
    why = side.run_one(tmp_path / "run", {"encoder": "lm"})
    assert why == "OSError: there is no file … here"


def row(receiver: str, f1: float, condition: str = "latents") -> dict:
    return {"receiver": receiver, "condition": condition, "f1": f1, "f1_ci": [f1 - 0.02, f1 + 0.02],
            "retention": 0.5, "kv_positions": 40.0}  # fmt: skip


def test_the_table_has_the_best_first_and_the_losers_too(script, tmp_path):
    runs = [
        {"encoder": name, "injection": "kv-prefix", "steps": 1500, "parameters": {"encoder": 2e6, "link": 1e6},
         "rows": [row("llama", f1), row("qwen2", f1 / 2)]}
        for name, f1 in (("worst", 0.011), ("best", 0.333))
    ]  # fmt: skip
    found = {"budget": {"minutes": None}, "ratio": 4, "n": [500], "seed": 3, "device": ["a GPU"], "runs": runs,
             "references": [row("llama", 0.555, "text"), row("llama", 0.044, "none")],
             "failed": {"broken+kv-prefix": "UserError: no"}}  # fmt: skip
    (tmp_path / "methods.json").write_text(json.dumps(found))
    page = "# Page\n\n<!-- methods:begin methods.json -->\nold\n<!-- methods:end -->\n\nafter\n"
    filled = script.fill(page, tmp_path)
    assert filled.endswith("after\n") and "old" not in filled
    places = [filled.index(text) for text in ("0.555", "0.044", "`best`", "0.333 (0.313–0.353)", "`worst`", "`broken`")]
    assert places == sorted(places)
    assert "3.0 M" in filled and "failed: UserError: no" in filled and "500 questions kept aside, 4×" in filled
    assert script.fill(filled, tmp_path) == filled
    assert script.fill(filled.replace("0.333", "0.433"), tmp_path) == filled


def test_the_page_holds_what_the_file_holds(script):
    page = (BENCHMARKS.parent / "docs" / "methods.md").read_text(encoding="utf-8")
    assert "<!-- methods:begin methods.json -->" in page
    assert script.fill(page) == page, "run python benchmarks/methods.py --table"


def test_runs_of_the_same_budget_that_the_file_holds_are_not_repeated(script, tmp_path, monkeypatch, capsys):
    side = importlib.import_module("side_by_side")
    row = {"receiver": "llama", "condition": "latents", "mode": "context", "ratio": 4, "f1": 0.2, "f1_ci": [0.1, 0.3],
           "retention": 0.4, "kv_positions": 50.0}  # fmt: skip
    reference = [{**row, "condition": name, "f1": value} for name, value in (("text", 0.5), ("none", 0.0))]
    held = {"encoder": "lm", "injection": "kv-prefix", "rows": [row], "steps": 600, "seconds": 9.0,
            "parameters": {"encoder": 5}}  # fmt: skip
    budget = {"steps": 600, "minutes": None, "parallel": 8, "passages": 64}
    file = tmp_path / "methods.json"
    told = {"budget": budget, "n": [40], "seed": 0, "smoke": False, "device": ["a GPU"], "versions": {},
            "references": reference, "runs": [held], "failed": {}}  # fmt: skip
    file.write_text(json.dumps(told))
    made = []

    def run_all(todo, parallel, after):
        for folder, job in todo:
            made.append(job["name"])
            folder.mkdir(parents=True)
            result = {**held, **job["facts"], "rows": [{**row, "f1": 0.3}], "data": {"n": 40}, "seed": 0,
                      "versions": {"torch": "2"}, "device": "another"}  # fmt: skip
            (folder / "result.json").write_text(json.dumps(result))
        after({})
        return {}

    monkeypatch.setattr(side, "run_all", run_all)
    words = ["--steps", "600", "--n", "40", "--out", str(tmp_path / "runs"), "--results", str(file), "--only"]
    assert script.main([*words, "lm+kv-prefix", "lm+soft-tokens"]) == 0
    found = json.loads(file.read_text())
    assert made == ["lm+soft-tokens"] and [side.named(run) for run in found["runs"]] == ["lm+kv-prefix", *made]
    assert [run["rows"][0]["retention"] for run in found["runs"]] == [0.4, 0.6], "by the references of the file"
    assert found["references"] == reference and found["device"] == ["a GPU", "another"]
    assert script.main([*words, "lm+kv-prefix", "--again"]) == 0 and made[1:] == ["lm+kv-prefix"]
    assert script.main(["--steps", "300", *words[2:], "pca+kv-prefix"]) == 0
    assert "lm+kv-prefix" not in map(side.named, json.loads(file.read_text())["runs"]), "another budget"
