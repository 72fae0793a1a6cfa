"""``benchmarks/curves.py``: one setting at a time, a line through the points, tables of what was found."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from pathlib import Path
from threading import Lock
from time import sleep
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("curves")


def test_every_run_differs_from_the_middle_in_one_setting(script, tmp_path):
    settings = script.points([])
    assert settings["middle"] == script.MIDDLE
    assert settings["ratio-4-seed-2"] == settings["ratio-4"] | {"seed": 2}
    for name, setting in settings.items():
        if name in script.SEEDS or name in script.THIRD:
            continue
        different = [key for key in setting if setting[key] != script.MIDDLE[key]]
        wanted = list(script.CAUSES[name]) if name in script.CAUSES else [name.split("-")[0]]
        assert different == ([] if name == "middle" else wanted)
    given = script.arguments(["--out", str(tmp_path), "--steps", "300"])
    configs = {job["name"]: job["config"] for _, job in script.jobs(given)}
    assert configs["training-2"]["steps"] == 600 and configs["middle"]["steps"] == 300
    assert all(config["passages"] == 64 and not config["minutes"] for config in configs.values())
    assert configs["d_z-128"]["wire"]["encoder"]["d_z"] == 128
    assert configs["ratio-16"]["wire"]["encoder"]["ratios"] == [16] and configs["ratio-16"]["draws"][0]["ratio"] == 16
    assert configs["text-0.25"]["corpus"]["windows"] * 4 == configs["middle"]["corpus"]["windows"]
    other = configs["qwen2-alone-from-qwen2"]["wire"]
    assert list(other["links"]) == ["qwen2"] and other["encoder"]["init"] == "sandbox:qwen2"
    assert other["encoder"]["lexicons"] == ["sandbox:llama"]
    third = configs["gpt2-ratio-2"]["wire"]
    assert [link["receiver"] for link in third["links"].values()] == ["sandbox:gpt2"] == third["encoder"]["lexicons"]
    assert third["encoder"]["init"] == "sandbox:llama" and third["encoder"]["ratios"] == [2]
    soft, asked = configs["gpt2-soft-tokens"], configs["gpt2-prompt-8"]
    assert soft["wire"]["links"]["gpt2"]["injection"] == {"type": "soft-tokens"} and not soft["corpus"]["prompts"]
    assert asked["draws"] == [{"ratio": 8, "mode": "prompt"}] and asked["corpus"]["prompts"]
    assert {job["name"]: job.get("mode") for _, job in script.jobs(given)}["gpt2-prompt-8"] == "prompt"
    assert all(link["adapter"]["slots"] == [4] for link in configs["slots-4"]["wire"]["links"].values())


def run(setting: float, *kept: float) -> dict:
    rows = [
        {"receiver": name, "condition": "latents", "f1": value / 2, "f1_ci": [value / 2 - 0.01, value / 2 + 0.01],
         "retention": value}
        for name, value in zip(("llama", "qwen2"), kept, strict=True)
    ]  # fmt: skip
    return {
        "name": f"text-{setting:g}",
        "setting": {"text": setting, "d_z": 512},
        "steps": 1000,
        "seconds": 90.0,
        "rows": rows,
    }


def test_a_line_finds_what_each_doubling_leaves_of_the_loss(script, tmp_path):
    table = importlib.import_module("curves_table")
    # 0.8 of what is lost is left each time
    runs = [run(x, 1 - 0.5 * 0.8**i, 0.5) for i, x in enumerate((0.25, 0.5, 1.0))]
    lines = table.fitted(runs, {"text": (), "d_z": ()}, {"text": 1.0, "d_z": 512})
    assert [(line["curve"], line["receiver"]) for line in lines] == [("text", "llama"), ("text", "qwen2")]
    assert lines[0]["doubled"] == pytest.approx(0.8, abs=1e-3) and lines[0]["rest"] < 1e-3
    assert lines[0]["tenfold"] == pytest.approx(1 - 0.5 * 0.8**2 * 0.8**3.3219, abs=1e-3)
    assert lines[1]["doubled"] == pytest.approx(1) and lines[1]["tenfold"] == pytest.approx(0.5)
    budget = {"steps": 900, "passages": 64, "windows": 200_000, "made": 90_000, "parallel": 4}
    found = {"runs": runs, "lines": lines, "failed": {"d_z-128": "UserError: no"}, "budget": budget, "n": [1000],
             "seed": 0, "device": ["a GPU"]}  # fmt: skip
    (tmp_path / "curves.json").write_text(json.dumps(found))
    page = table.fill("# L\n\n<!-- curves:begin curves.json -->\nold\n<!-- curves:end -->\n\nafter\n", tmp_path)
    assert "| text-0.25 | 1,000 | 1.5 | 0.250 (0.240–0.260) | 0.50 |" in page and "old" not in page
    assert "| text | `llama` | 0.80 of what is lost | 0.85 | 0.00 |" in page and "failed: UserError: no" in page
    assert table.fill(page, tmp_path) == page and page.endswith("after\n")


def test_a_line_along_the_ratio_is_of_what_is_kept(script):
    table = importlib.import_module("curves_table")
    runs = [{**run(1, kept, 0.0), "setting": {"ratio": ratio}} for ratio, kept in ((2, 0.8), (4, 0.4), (8, 0.2))]
    (line,) = table.fitted(runs, {"ratio": ()}, {"ratio": 8})
    assert (line["receiver"], line["share"], line["tenfold"]) == ("llama", "kept", None)
    assert line["doubled"] == pytest.approx(0.5) and line["rest"] < 1e-6


def test_the_page_holds_what_the_file_holds(script):
    page = (BENCHMARKS.parent / "docs" / "log.md").read_text(encoding="utf-8")
    assert "<!-- curves:begin curves.json -->" in page
    assert script.fill(page) == page, "run python benchmarks/curves.py --table"


def test_runs_share_the_gpus_evenly_and_use_no_others(script, tmp_path, monkeypatch):
    side, held, most = importlib.import_module("side_by_side"), Counter(), Counter()
    lock = Lock()

    def busy(folder, job, gpu):
        with lock:
            held[gpu] += 1
            most[gpu] = max(most[gpu], held[gpu])
        sleep(job["time"])
        with lock:
            held[gpu] -= 1

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(side, "run_one", busy)
    todo = [(tmp_path / str(i), {"name": str(i), "time": 0.05 if i % 2 else 0.005}) for i in range(12)]
    assert side.run_all(todo, 4, lambda failed: None) == {}
    assert most == {"5": 2, "7": 2}


@pytest.mark.slow
def test_a_smoke_run_measures_its_points(script, tiny_readers, tmp_path, monkeypatch, capsys):
    side = importlib.import_module("side_by_side")

    def here(command, **_):
        assert command[:2] == [sys.executable, side.__file__]
        side.work(Path(command[2]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(side.subprocess, "run", here)
    monkeypatch.setattr(script, "CURVES", {"text": (1.0,)})
    monkeypatch.setattr(script, "CAUSES", {"from-qwen2": {"encoder": "qwen2"}})
    monkeypatch.setattr(script, "SEEDS", {"middle-seed-1": {"seed": 1}})
    monkeypatch.setattr(script, "THIRD", {})
    readers = [f"{name}={tiny_readers[name]}" for name in ("llama", "qwen2")]
    assert script.main(["--smoke", "--out", str(tmp_path), "--n", "4", "--reader", *readers]) == 0
    found = json.loads((tmp_path / "curves.json").read_text())
    assert sorted(run["name"] for run in found["runs"]) == ["from-qwen2", "middle", "middle-seed-1"]
    assert {run["steps"] for run in found["runs"]} == {2} and found["n"] == [4] and not found["lines"]
    assert [row["condition"] for row in found["references"]] == ["text", "none"] * 2
    assert "| middle | 2 | " in capsys.readouterr().out
    # asked for a part of them again, the file keeps them all
    monkeypatch.setattr(side.subprocess, "run", lambda *_, **__: pytest.fail("a finished run was repeated"))
    assert script.main(["--smoke", "--out", str(tmp_path), "--n", "4", "--only", "causes", "--reader", *readers]) == 0
    assert json.loads((tmp_path / "curves.json").read_text())["runs"] == found["runs"]
