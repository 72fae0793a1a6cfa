"""``benchmarks/fidelity.py``: answers are told apart, and the page has the figures of the file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from latentwire.evaluation.runner import evaluate
from latentwire.types import Example

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "fidelity.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("fidelity", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("14 December 1911", "date"),
        ("1911", "date"),
        ("the 1850s", "date"),
        ("1,204", "number"),
        ("40 percent", "number"),
        ("Roald Amundsen", "name"),
        ("University of Łódź", "name"),
        ("NASA", "name"),
        ("the city council", "other"),
        ("Norwegian ships", "other"),
    ],
)
def test_what_an_answer_is(script, answer, kind):
    assert script.what(answer) == kind


def test_every_answer_is_in_one_group_of_each_heading(script, tiny_wire, tmp_path):
    text = "Roald Amundsen arrived on 14 December 1911. The city has 1,204 inhabitants and a small harbour."
    examples = [
        Example("a-1", text, "Who?", ("Roald Amundsen",)),
        Example("a-2", text, "When?", ("14 December 1911",)),
        Example("a-3", text, "What?", ("inhabitants and a small harbour",)),
    ]
    evaluate(tiny_wire, examples, (4,), (16, 8), ["text", "none", "latents"], ["llama"], out=tmp_path, progress=False)
    found = script.fidelity(tmp_path, examples)
    for heading in script.GROUPS:
        rows = [row for row in found["rows"] if row["heading"] == heading]
        assert sum(row["n"] for row in rows) == 3, heading
    by_group = {row["group"]: row["n"] for row in found["rows"]}
    assert by_group["date"] == by_group["name"] == by_group["other"] == 1
    assert {place: by_group.get(place, 0) for place in script.GROUPS["place"]} == dict(
        zip(script.GROUPS["place"], (2, 1, 0), strict=True)
    )
    assert script.table(found).count("\n| ") >= 4


def test_the_page_has_the_figures_of_the_file(script):
    page = script.PAGE.read_text(encoding="utf-8")
    found = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    assert script.fill(page, found) == page, "run python benchmarks/fidelity.py --table"
    quoted = json.loads((script.RESULTS.parent / "sandbox-full.json").read_text(encoding="utf-8"))
    # the quoted evaluation's own answers were told apart
    assert (found["encoder"], found["n"]) == (quoted["wire"]["encoder"], quoted["data"]["n"]), "fidelity.py DIR"

    for row in quoted["rows"]:
        mine = [
            r
            for r in found["rows"]
            if (r["receiver"], r["ratio"], r["heading"]) == (row["receiver"], row["ratio"], "what")
        ]
        if row["condition"] == "latents" and row["bits"] == 16:
            total = sum(r["n"] * r["latents"] for r in mine) / sum(r["n"] for r in mine)
            assert total == pytest.approx(row["f1"], abs=2e-3)
