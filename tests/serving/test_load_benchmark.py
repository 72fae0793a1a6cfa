"""The load benchmark: its figures in docs/serving.md, and that it would see what it looks for."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from serving.conftest import QUESTION, asked, running

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("serve_load", ROOT / "benchmarks" / "serve_load.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["serve_load"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["serve_load"]


def test_the_page_has_the_figures_of_the_file(benchmark):
    page = benchmark.PAGE.read_text(encoding="utf-8")
    facts = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))
    assert benchmark.fill(page, facts) == page, "run python benchmarks/serve_load.py --fill"
    batched, alone = facts["rows"]
    assert all(row["lost"] == row["mixed_up"] == 0 and row["answers"] > 100 for row in facts["rows"])
    assert batched["mean_batch"] > 1 == alone["mean_batch"]
    assert batched["tokens_per_second"] > alone["tokens_per_second"]


def test_answers_are_compared_and_counted(benchmark, tiny_wire, packets):
    answers = [tiny_wire.receiver("llama").generate(packets[0], f"{QUESTION} {n}", 5) for n in range(4)]
    cases = [
        benchmark.Case(asked(packets[0], f"{QUESTION} {n}", max_tokens=5), answer) for n, answer in enumerate(answers)
    ]
    with running(tiny_wire) as server:
        address = server.url.removeprefix("http://")
        good, bad = benchmark.Tally(), benchmark.Tally()
        benchmark.load(address, cases, 4, 0.5, good)
        benchmark.load(address, [benchmark.Case(cases[0].body, "another answer")], 2, 0.2, bad)
        refused = benchmark.Tally()
        benchmark.load(address, [benchmark.Case({"model": "gpt-4"}, "")], 1, 0.1, refused)
    row = good.row(32)
    assert row["answers"] >= 4 and row["lost"] == row["mixed_up"] == 0 and row["tokens_per_second"] > 0
    assert bad.mixed == len(bad.seconds) > 0
    assert refused.lost > 0 and not refused.seconds
