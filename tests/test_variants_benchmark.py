"""``benchmarks/variants.py``: every adapter and objective takes part, and the table holds what was found."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from latentwire.adapters import AdapterConfig
from latentwire.config import decode
from latentwire.objectives import ObjectiveConfig
from latentwire.training.config import TrainConfig

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("variants")


def test_every_adapter_and_objective_takes_part_beside_what_is_usual(script, tmp_path):
    given = script.arguments(["--out", str(tmp_path), "--steps", "7"])
    jobs = {job["name"]: job for _, job in script.jobs(given)}
    usual = script.usual_objectives()
    assert {"answer", "kl"} <= set(usual)
    wanted = [f"adapter-{name}" for name in AdapterConfig.known() if name != "mlp"]
    wanted += [f"objective-{name}" for name in ObjectiveConfig.known() if name not in usual]
    settings = {name for name in jobs if name.startswith("setting-")}
    assert sorted(set(jobs) - settings) == sorted(wanted) and len(settings) == len(script.SETTINGS)
    configs = {name: decode(TrainConfig, job["config"]) for name, job in jobs.items()}
    assert all(config.steps == 7 for config in configs.values())
    trees = {name: jobs[f"setting-{name}"]["config"]["wire"] for name in ("encoder-lexicons", "encoder-receivers")}
    assert trees["encoder-lexicons"]["encoder"]["lexicons"] == ["sandbox:qwen2"]
    assert trees["encoder-receivers"]["encoder"]["receivers"] == ["llama", "qwen2"]
    assert all(link.lora.layers == 4 for link in configs["setting-links-lora"].wire.links.values() if link.lora)
    assert all(link.lora for link in configs["setting-links-lora"].wire.links.values())
    for name, config in configs.items():
        if name in settings:
            continue
        kind, _, of = name.partition("-")
        link = config.wire.links["qwen2"]
        assert (type(link.adapter).__name__ != "MLPAdapterConfig") == (kind == "adapter")
        assert list(config.objectives) == [*usual, *([of] if kind == "objective" else [])]
    injections = {name: job["facts"]["injection"] for name, job in jobs.items()}
    assert injections["objective-rms"] == "soft-tokens" and injections["objective-hidden-states"] == "kv-column"


def test_a_smoke_run_measures_one_and_its_table_has_its_base(script, tiny_readers, tmp_path, monkeypatch, capsys):
    side = importlib.import_module("side_by_side")

    def here(command, **_):
        side.work(Path(command[2]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(side.subprocess, "run", here)
    readers = [f"{name}={tiny_readers[name]}" for name in ("llama", "qwen2")]
    asked = ["--smoke", "--out", str(tmp_path), "--reader", *readers, "--n", "4"]
    assert script.main([*asked, "--only", "adapter-linear"]) == 0
    found = json.loads((tmp_path / "variants.json").read_text())
    assert [run["name"] for run in found["runs"]] == ["adapter-linear"]
    assert {run["steps"] for run in found["runs"]} == {2} and not found["failed"]
    assert "| adapter `linear` | `kv-column` |" in capsys.readouterr().out

    rows = [{"receiver": "llama", "f1": 0.5, "f1_ci": [0.4, 0.6], "retention": 0.9}]
    base = {"encoder": "lm", "injection": "kv-column", "parameters": {"encoder": 2_000_000}, "rows": rows}
    other = base | {"injection": "kv-prefix"}
    references = [{"receiver": "llama", "condition": name, "f1": f1} for name, f1 in (("none", 0.0), ("text", 1.0))]
    there = {"budget": found["budget"] | {"parallel": 3}, "runs": [other, base], "references": references}
    (tmp_path / "methods.json").write_text(json.dumps(there))
    lines = script.table(found, script.bases_of(found, tmp_path / "variants.json")).splitlines()
    assert lines[2].startswith("| nothing | `kv-column` | 2.0 M | 0.500 (0.400–0.600) | 0.90 |")
    assert "adapter `linear`" in "".join(lines[3:])
    # full text and no context of methods.json give retention
    assert script.main([*asked, "--only", "adapter-linear"]) == 0
    row = json.loads((tmp_path / "variants.json").read_text())["runs"][0]["rows"][0]
    assert row["retention"] == pytest.approx(row["f1"], abs=1e-4)
    # of another budget they are not
    (tmp_path / "methods.json").write_text(json.dumps(there | {"budget": {"steps": 9}}))
    assert not script.bases_of(found, tmp_path / "variants.json")


def test_the_page_holds_the_table(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert "<!-- variants:begin -->" in page and script.fill(page) == page, "run python benchmarks/variants.py --table"


def test_a_run_that_is_not_there_is_named(script, tmp_path):
    with pytest.raises(SystemExit, match="no run 'adapter-mlp'"):
        script.main(["--out", str(tmp_path), "--only", "adapter-mlp"])
