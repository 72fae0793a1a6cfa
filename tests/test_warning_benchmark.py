"""``benchmarks/warning.py``: areas and fifths of answers whose loss is known; its page holds what its file holds."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("warning")


def test_the_area_counts_pairs_in_the_right_order(script):
    signal = np.array([0.1, 0.4, 0.4, 0.9])
    # pairs (lost, kept): (.1, .4), (.1, .9) right, (.4, .4) a tie, (.4, .9) right
    assert script.area(signal, np.array([True, True, False, False])) == pytest.approx(3.5 / 4)
    assert script.area(signal, np.array([False, False, True, True])) == pytest.approx(0.5 / 4)
    assert script.area(signal, np.array([False] * 4)) is None


def test_fifths_and_falling_back(script):
    rng = np.random.default_rng(0)
    signal = rng.random(4000)
    # from latents an answer is right as often as the signal says; from text always
    scores = {"text": np.ones(4000), "none": np.zeros(4000), "latents": (rng.random(4000) < signal).astype(float)}
    found = script.judged(signal, scores, np.arange(4000) % 2 == 0)
    for half in ("first", "second"):
        assert [fifth[half]["retention"] for fifth in found["fifths"]] == pytest.approx(
            [0.1, 0.3, 0.5, 0.7, 0.9], abs=0.06
        )
        assert sum(fifth[half]["n"] for fifth in found["fifths"]) == 2000
    assert found["area"] == pytest.approx(5 / 6, abs=0.03)
    quarter = found["fall_back"]["0.25"]
    assert quarter["by_luck"] == pytest.approx(0.25 + 0.75 * 0.5, abs=0.02)
    # the quarter with the lowest signal would have had an eighth right
    assert quarter["f1"] == pytest.approx(0.5 + 0.25 * 7 / 8, abs=0.02)


def test_the_page_holds_what_the_file_holds(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert "<!-- warning:begin -->" in page
    assert script.fill(page) == page, "run python benchmarks/warning.py --table"
    whole = json.loads((BENCHMARKS / "results" / "sandbox-full.json").read_text(encoding="utf-8"))
    if script.RESULTS.is_file():
        found = json.loads(script.RESULTS.read_text(encoding="utf-8"))
        assert found["encoder"] == whole["wire"]["encoder"], "the warning was measured with another wire"


def test_an_evaluation_of_the_shipped_wire_is_read(script, tmp_path, monkeypatch):
    from latentwire import Wire
    from latentwire.data.rows import read_examples
    from latentwire.data.squad import article, shipped_valid
    from latentwire.evaluation.runner import evaluate

    rows = {article(e.id): e for e in read_examples(shipped_valid()) if len(e.context) < 350}
    examples = list(rows.values())[:6]
    wire = Wire.from_pretrained("sandbox", receivers=["llama"])
    evaluate(wire, examples, [8], [16], ["text", "none", "latents"], out=tmp_path / "all", progress=False)
    found = script.measure(tmp_path / "all", "sandbox", examples, ["llama"])
    assert found["n"] == len(examples) and [(r["ratio"], r["signal"]) for r in found["rows"]] == [
        (8, "right"),
        (8, "likelihood"),
    ]
    assert 0 < found["rows"][0]["mean"] < 1
    table = script.table(found | {"rows": [row | {"area": 0.5} for row in found["rows"]]})
    assert table.count("| `llama` | 8× |") == 1
