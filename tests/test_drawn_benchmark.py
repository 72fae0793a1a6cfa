"""``benchmarks/drawn.py``: the questions that ``eval --n`` draws, and no others."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from random import Random

from latentwire.data.rows import read_examples
from latentwire.data.squad import shipped_valid


def test_figures_are_of_the_drawn_questions_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    drawn = importlib.import_module("drawn").drawn
    examples = read_examples(shipped_valid())
    chosen = {example.id for example in Random(3).sample(examples, 20)}
    row = {"receiver": "llama", "condition": "latents", "ratio": 4, "bits": 16}
    lines = [row | {"id": example.id, "f1": float(example.id in chosen) / 4} for example in examples]
    (tmp_path / "results.json").write_text(json.dumps({"mode": "context", "wire": {"encoder": "00"}}))
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = drawn(tmp_path, 20, 3)
    assert found["rows"] == [row | {"n": 20, "f1": 0.25, "f1_ci": [0.25, 0.25]}]
    assert found["wire"] == {"encoder": "00"} and found["drawn"] == {"n": 20, "seed": 3}
    assert drawn(tmp_path, 20, 4)["rows"][0]["f1"] < 0.25
