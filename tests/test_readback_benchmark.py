"""The table of docs/packets.md is that of the results file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_has_the_figures_of_the_file():
    spec = importlib.util.spec_from_file_location("readback", ROOT / "benchmarks" / "readback.py")
    assert spec and spec.loader
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    page = benchmark.PAGE.read_text(encoding="utf-8")
    results = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))
    assert benchmark.fill(page, results) == page, "run python benchmarks/readback.py --fill"
    # what the page says of them: a text is read back better than another one, and words are found where they stand
    for row in results["rows"]:
        assert row["f1"] > 1.3 * row["f1_wrong"] and row["lcs"] > 1.3 * row["lcs_wrong"], row
        assert row["word"] > 2 * row["word_elsewhere"], row
