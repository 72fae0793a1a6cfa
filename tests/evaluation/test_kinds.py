"""The three kinds of answers."""

from __future__ import annotations

import pytest

from latentwire.evaluation.kinds import kind_of, pieces
from latentwire.evaluation.merge import merge
from latentwire.evaluation.runner import evaluate
from latentwire.types import Example


@pytest.mark.parametrize(
    ("answer", "cuts", "kind"),
    [
        ("14 December 1911", [["14"], ["14"]], "digits"),
        ("", [[], []], "no answer"),
        ("Paris", [["Par", "is"], ["Par", "is"]], "alike"),
        ("Paris", [["Par", "is"], ["Pa", "ris"]], "different"),
    ],
)
def test_kind(answer, cuts, kind):
    assert kind_of(answer, cuts) == kind


def test_pieces_are_of_the_answer_as_it_stands_in_the_layout(tiny_wire):
    answers = ["Roald Amundsen", "1911", "Łódź 東京"]
    for name in ("llama", "qwen2"):
        prompt = tiny_wire.get_receiver(name).prompt
        found = pieces(prompt, answers)
        assert "".join(found[0]) == "RoaldAmundsen" and "".join(found[1]) == "1911"
        # only the second one splits digits one by one
        assert (found[1] == list("1911")) == (name == "qwen2")


def test_f1_is_split_by_kind(tiny_wire, tmp_path):
    examples = [
        Example("a", "Roald Amundsen arrived on 14 December 1911.", "When?", ("14 December 1911",)),
        Example("b", "Roald Amundsen arrived on 14 December 1911.", "Who?", ("Roald Amundsen",)),
        Example("c", "The city has 1,204 inhabitants.", "How many?", ("1,204",)),
        Example("d", "The city has 1,204 inhabitants.", "Who built it?", ()),
    ]
    results = evaluate(tiny_wire, examples, conditions=("text", "none", "latents", "zero"), progress=False)
    rows = results["kinds"]
    assert {row["condition"] for row in rows} == {"text", "none", "latents"}
    for name in ("llama", "qwen2"):
        mine = [row for row in rows if (row["receiver"], row["condition"]) == (name, "latents")]
        assert sum(row["n"] for row in mine) == 4 and next(row["n"] for row in mine if row["kind"] == "digits") == 2
        whole = next(r for r in results["rows"] if (r["receiver"], r["condition"]) == (name, "latents"))
        assert sum(row["n"] * row["f1"] for row in mine) / 4 == pytest.approx(whole["f1"], abs=1e-3)
    # each receiver by itself, its rows spread over two runs: joined, they are split just so
    parts = []
    for name in tiny_wire.receivers:
        for conditions in (("latents", "zero"), ("text", "none")):
            parts.append(tmp_path / f"{name}-{conditions[0]}")
            evaluate(tiny_wire, examples, conditions=conditions, receivers=[name], out=parts[-1], progress=False)
    joined = merge(tmp_path / "joined", parts, tiny_wire)
    assert sorted(map(str, joined["kinds"])) == sorted(map(str, rows))
