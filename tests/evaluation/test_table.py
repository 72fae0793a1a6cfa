"""The table: readable in a hundred columns, in fewer, and in a file."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from latentwire.evaluation.table import COLUMNS, cells, print_table, share


def row(condition: str, **given) -> dict:
    return {
        "receiver": "llama", "condition": condition, "mode": "context", "ratio": None, "bits": None, "n": 4851,
        "em": 0.25, "f1": 0.3333, "f1_ci": [0.3201, 0.3467], "nll": 12.345, "first_token": 0.4, "retention": 0.704,
        "positions": 190.5, "kv_positions": 1162.9, "own_ratio": 3.9, "bytes": 10548.5, "cut": 0,
        "seconds": {"encode": 1.0, "adapt": 0.5, "prefill": 1000.0, "decode": 3.0}, "na": None,
    } | given  # fmt: skip


RESULTS: dict[str, Any] = {
    "mode": "context",
    "seed": 3,
    "rows": [
        row("text", retention=1.0, cut=12),
        row("budget-question", ratio=16, bits=16, retention=-0.123),
        row(
            "same-bytes",
            ratio=4,
            bits=4,
            f1=None,
            f1_ci=None,
            bytes=None,
            na="packets (9) are no smaller than texts (8)",
        ),
        row("latents", ratio=4, bits=16),
        row("latents", ratio=4, bits=16, receiver="qwen2"),
    ],
}


def printed(width: int, terminal: bool = True) -> str:
    file = io.StringIO()
    print_table(RESULTS, Console(file=file, width=width, force_terminal=terminal, color_system=None))
    return file.getvalue()


def test_cells():
    assert cells(RESULTS["rows"][3]) == [
        "latents", "4x", "16", ".333", ".320-.347", ".250", "70 %", "12.35", ".40", "1162.9", "10,548", "1004.5",
    ]  # fmt: skip
    assert cells(RESULTS["rows"][2])[:4] == ["same-bytes", "4x", "4", "n/a"]
    assert [share(value) for value in (0, 0.5, 0.9996, 1)] == [".000", ".500", "1.00", "1.00"]


def test_a_hundred_columns_show_everything():
    text = printed(100)
    assert all(name in text for name in COLUMNS)
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    assert "4,851 questions" in text and text.count("context mode") == 2
    assert "same-bytes: n/a, packets (9) are no smaller" in text and "12 of the texts" in text


@pytest.mark.parametrize("width", [60, 72, 80, 90])
def test_a_narrow_terminal_shows_what_matters(width):
    text = printed(width)
    assert all(name in text for name in ("condition", "F1", "kept", "K/V", "bytes", "70 %", ".333"))
    assert all(len(line.rstrip()) <= width for line in text.splitlines()) and "…" not in text


def test_a_file_is_not_narrow():
    assert all(name in printed(80, terminal=False) for name in COLUMNS)
