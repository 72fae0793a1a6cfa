"""``benchmarks/channel_statistics.py``: errors known for drawn values, and a page that holds what the file holds."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from latentwire.types import Example

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
FITTED_SAME, FITTED_ENOUGH = "channels, fitted levels, bytes of groups", "channels, fitted levels, error of groups"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("channel_statistics")


def normal(seed: int, apart: float) -> torch.Tensor:
    """Normal values; every other channel has another mean."""
    z_ND = torch.randn(500, 64, generator=torch.Generator().manual_seed(seed))
    z_ND[:, ::2] += apart
    return z_ND


def by_way(rows: list[dict]) -> dict[tuple[int, str], dict]:
    return {(row["bits"], row["what"]): row for row in rows}


def test_levels_lose_of_normal_values_what_is_known_of_them(script):
    x_N = script.drawn(torch.randn(1, 400_000, generator=torch.Generator().manual_seed(0)))
    told = {make: script.on_grid(make(x_N, 16))(x_N) for make in (script.even, script.fitted)}
    # Max (1960): sixteen levels leave .01154 of the variance evenly spaced, .009497 where they are best
    assert float((told[script.even] - x_N).square().mean()) == pytest.approx(0.01154, rel=0.02)
    assert float((told[script.fitted] - x_N).square().mean()) == pytest.approx(0.009497, rel=0.02)


def test_channels_that_are_alike_need_no_statistics_and_unlike_ones_do(script, monkeypatch):
    monkeypatch.setattr(script, "BITS", (4,))
    monkeypatch.setattr(script, "ROUNDS", 50)
    alike, unlike = (by_way(script.measure(normal(1, apart), normal(2, apart), 10.0)) for apart in (0.0, 10.0))
    groups, even = (4, "groups of 32, a scale each"), (4, "channels, even levels")
    assert alike[groups]["bytes"] == 32 + 10 * 36 and alike[even]["bytes"] == 32 + 10 * 32
    assert alike[even]["error"] > 1.3 * alike[groups]["error"]
    assert unlike[even]["error"] < 0.1 * unlike[groups]["error"]
    for found in (alike, unlike):
        assert found[4, FITTED_ENOUGH]["error"] <= found[groups]["error"]
        assert found[4, FITTED_ENOUGH]["bytes"] <= found[4, FITTED_SAME]["bytes"] <= found[groups]["bytes"]


def test_what_is_measured_is_of_other_articles(script):
    examples = [
        Example(f"squad_v1-train-Title{n // 4}-{n}-0", f"passage {n}", "Who?", ("A",)) for n in range(40) for _ in "ab"
    ]
    fit, texts = script.split(examples, 15, 0)
    assert len(set(fit)) == len(set(texts)) == 15
    titles = [{int(text.split()[1]) // 4 for text in side} for side in (fit, texts)]
    assert not titles[0] & titles[1]


def test_a_wire_is_measured(script, tiny_wire, monkeypatch):
    monkeypatch.setattr(script, "ROUNDS", 5)
    fit, texts = [f"{n} letters were sent to Oslo." for n in range(8)], [f"No {n} came from York." for n in range(8)]
    found = script.run(tiny_wire, fit, texts, [4]) | {"seed": 0}
    assert (found["n"], found["fitted_on"], len(found["rows"])) == (8, 8, 24)
    assert found["rows"][0]["bytes"] == pytest.approx(
        sum(packet.size(8) for packet in tiny_wire.encode(texts, 4)) / 8, abs=0.1
    )
    assert "| groups of 32, a scale each |" in script.table(json.loads(json.dumps(found)))


def test_the_page_holds_what_the_file_holds(script):
    found = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.fill(page, found) == page, "run python benchmarks/channel_statistics.py --fill"
