"""``benchmarks/break_even.py``: docs/results.md holds the table of its file."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("break_even")


def test_a_line_for_each_receiver_and_length(script):
    row = {"receiver": "llama", "tokens": 64, "even_after_flops": 1.24, "kept_bytes": {"text": 700, "latents": 200}}
    rows = [row | {"ratio": 4, "batch": 2, "even_after_seconds": None}]
    rows.append(row | {"ratio": 8, "batch": 2, "even_after_seconds": 0.96})
    found = {"rows": rows, "device": "cpu", "threads": 2, "versions": {"torch": "2"}, "wire": "ab"}
    lines = script.table(found).splitlines()
    assert lines[2] == "| `llama` | 64 | 1.2 / never | 1.2 / 1.0 | 3.5 | 3.5 |" and len(lines) == 5


def test_the_page_holds_the_table(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert "<!-- even:begin -->" in page
    assert script.fill(page) == page, "run python benchmarks/break_even.py --fill"
