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
    rows = [{"receiver": "llama", "ratio": ratio, "retention": kept} for ratio, kept in ((4, 0.9), (4, 0.8), (8, 0.7))]
    (tmp_path / "seeds.json").write_text(json.dumps({"runs": [{"rows": rows[:1]}, {"rows": rows[1:]}]}))
    assert cells(script.table("llama"))["retention of 2 runs with other seeds"] == [
        "", "0.800–0.900", "0.700–0.700", "", ""
    ]  # fmt: skip


def test_the_page_holds_the_tables(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert "<!-- ratios:begin -->" in page
    assert script.fill(page) == page, "run python benchmarks/ratios.py"
