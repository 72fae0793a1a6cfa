"""The measured tables: made from files, and out of date as soon as a file or a figure in a document changes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "readme_table.py"
DOCUMENT = "# Title\n\n<!-- results:begin one.json -->\nold\n<!-- results:end -->\n\nafter\n"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("readme_table", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(receiver: str, condition: str, f1: float, ratio: int | None = None, bits: int | None = None) -> dict:
    return {
        "receiver": receiver, "condition": condition, "ratio": ratio, "bits": bits, "n": 4851, "em": f1 / 2, "f1": f1,
        "f1_ci": [f1 - 0.01, f1 + 0.01], "retention": None if ratio is None else 0.5, "kv_positions": 40.25,
        "bytes": 1234,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    rows = [
        row("llama", "latents", 0.333, 4, 8),
        row("qwen2", "latents", 0.222, 4, 8),
        row("llama", "latents", 0.334, 4, 16),
        row("llama", "text", 0.456),
        row("llama", "none", 0.041),
    ]
    (tmp_path / "one.json").write_text(
        json.dumps({"rows": rows, "seed": 7, "mode": "context", "wire": {"encoder": "abc123"}})
    )
    return tmp_path


def test_a_table_holds_what_the_file_holds(script, folder):
    filled = script.fill(DOCUMENT, folder)
    assert filled.startswith("# Title") and filled.endswith("after\n") and "old" not in filled
    assert "0.333 (0.323–0.343)" in filled and "0.222" in filled and "1,234" in filled
    assert "4,851 questions, context mode, seed 7, encoder `abc123`." in filled
    # references first, then ratio by ratio, more bits first
    places = [filled.index(figure) for figure in ("0.456 (", "0.041 (", "0.334 (", "0.333 (")]
    assert places == sorted(places)


def test_filling_twice_changes_nothing(script, folder):
    filled = script.fill(DOCUMENT, folder)
    assert script.fill(filled, folder) == filled


def test_a_figure_typed_by_hand_is_noticed(script, folder):
    forged = script.fill(DOCUMENT, folder).replace("0.333", "0.433")
    assert script.fill(forged, folder) != forged


def test_a_file_that_is_not_there_gives_no_figures(script, tmp_path):
    assert "Not measured yet." in script.fill(DOCUMENT, tmp_path)
