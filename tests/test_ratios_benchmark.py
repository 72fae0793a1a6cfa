"""``benchmarks/ratios.py``: the tables hold what the files hold, and docs/results.md holds the tables."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("ratios")


def cells(table: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    return {line[0]: line[1:] for line in lines}


def test_every_figure_is_from_its_file(script):
    whole = json.loads((BENCHMARKS / "results" / "sandbox-full.json").read_text(encoding="utf-8"))
    row = next(r for r in whole["rows"] if (r["receiver"], r["condition"], r["ratio"]) == ("qwen2", "latents", 8))
    line = cells(script.table("qwen2"))["**latents**, a K/V slot each"]
    assert line[2] == f"{row['f1']:.3f} ({row['retention']:.2f})" and line[0] == line[4] == ""


def test_what_is_not_there_has_no_line(script, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    assert cells(script.table("llama")).keys() == {"`llama`", "---"}
    middle = {"ratio": 8, "d_z": 512}
    runs = [
        {"name": name, "setting": middle | more, "rows": [{"receiver": "llama", "f1": 0.1, "retention": kept}]}
        for name, more, kept in (
            ("middle", {}, 0.7), ("ratio-4", {"ratio": 4}, 0.9), ("ratio-4-seed-1", {"ratio": 4, "seed": 1}, 0.8),
            ("other", {"ratio": 4, "d_z": 128}, 0.1),
        )
    ]  # fmt: skip
    (tmp_path / "curves.json").write_text(json.dumps({"runs": runs}))
    assert cells(script.table("llama"))["the same from three seeds, least and most kept"] == [
        "", "0.80–0.90", "", "", ""
    ]  # fmt: skip


def test_the_page_holds_the_tables(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert "<!-- ratios:begin -->" in page
    assert script.fill(page) == page, "run python benchmarks/ratios.py"
