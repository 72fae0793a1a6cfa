"""``benchmarks/history.py`` and ``benchmarks/kill_and_resume.py``."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return {name: importlib.import_module(name) for name in ("history", "kill_and_resume")}


def test_recipes_differ_in_what_the_recipe_is_alone(scripts, tmp_path):
    script = scripts["history"]
    given = script.arguments(["--out", str(tmp_path), "--minutes", "2"])
    configs = {job["name"]: job["config"] for _, job in script.jobs(given)}
    assert list(configs) == list(script.RECIPES)
    same = {"wire", "corpus", "rate", "encoder_rate", "passages", "minutes", "seed"}
    assert all(config[key] == configs["constant"][key] for config in configs.values() for key in same)
    assert all(config["minutes"] == 2 and config["passages"] == 128 for config in configs.values())
    assert "answer" not in configs["reconstruction"]["objectives"]
    assert configs["ramped"]["objectives"]["answer"]["weight"]["kind"] == "gated"


def test_the_page_says_what_each_recipe_gave(scripts, tmp_path):
    script = scripts["history"]
    names = ("llama", "qwen2")

    def rows(condition, f1):
        return [{"receiver": name, "condition": condition, "f1": f1, "f1_ci": [f1 - 0.01, f1 + 0.01],
                 "retention": None if condition != "latents" else 0.1} for name in names]  # fmt: skip

    found = {
        "references": rows("text", 0.5) + rows("none", 0.02), "n": [1000], "seed": 0, "device": ["a GPU"],
        "minutes": 6.5,
        "runs": [{"name": "constant", "steps": 900, "rows": rows("latents", 0.07), "cosine": {"llama": 0.17},
                  "events": [{"event": "one-token"}, {"event": "one-token"}]}],
        "failed": {"ramped": "UserError: stopped"},
    }  # fmt: skip
    path = tmp_path / "history.json"
    path.write_text(json.dumps(found))
    page = script.fill("# M\n<!-- history:begin -->\nold\n<!-- history:end -->\nafter\n", path)
    assert (
        "| `constant` | 900 | 0.070 (0.060–0.080) | 0.10 | 0.17 | 0.070 (0.060–0.080) | 0.10 |  | one-token |" in page
    )
    assert "`ramped` | failed: UserError: stopped" in page and "old" not in page and page.endswith("after\n")


def test_the_page_of_methods_holds_what_the_file_holds(scripts):
    script = scripts["history"]
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.fill(page) == page


TRAINING = """
import json, pathlib, signal, sys, time
run, stopped = pathlib.Path(sys.argv[1]), []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
run.mkdir(parents=True, exist_ok=True)
lines = run / "metrics.jsonl"
done = len(lines.read_text().splitlines()) if lines.exists() else 0
for step in range(done + 1, 9):
    with lines.open("a") as file:
        line = {"step": step, "source": "text", "draw": "4x", "loss": 9.0 - step, "step_seconds": 0.1}
        file.write(json.dumps(line) + "\\n")
    time.sleep(0.05)
    if stopped:
        sys.exit(143)
"""


def test_a_killed_run_is_told_from_one_that_ends(scripts, tmp_path, monkeypatch, capsys):
    script = scripts["kill_and_resume"]
    monkeypatch.setattr(script, "made", lambda *_: [Path("m")] * 4)
    monkeypatch.setattr(script, "LOOK", 0.01)
    given = {"run": tmp_path / "r", "steps": 8, "smoke": True, "set": ["rate=1"], "data_dir": ""}
    given["config"] = "configs/llama8b_qwen7b_squad.yaml"
    words = script.command(SimpleNamespace(**given), [Path("m")] * 4)
    assert "steps=8" in words and "rate=1" in words and f"wire.encoder.init={Path('m')}" in words
    monkeypatch.setattr(script, "command", lambda given, _: [sys.executable, "-c", TRAINING, str(given.run)])
    out = tmp_path / "out.json"
    argv = ["x", "--smoke", "--steps", "8", "--kill", "3", "--run", str(tmp_path / "run"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", argv)
    assert script.main() == 0
    found = json.loads(out.read_text())
    assert found["exit_codes"] == [143, 0] and 3 <= found["killed_at"] < 8
    assert found["resumed_at"] == found["killed_at"] + 1 and found["ended_at"] == 8
    assert [line["step"] for line in found["steps"]] == list(range(1, 9))
    with pytest.raises(SystemExit):  # a second run in the same folder would be no evidence
        script.main()
    assert "fresh folder" in capsys.readouterr().err
