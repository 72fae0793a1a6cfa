"""How answers are written and read: what is refused, what changes, and that the default changes nothing."""

from __future__ import annotations

import json

import pytest

from latentwire.errors import UserError
from latentwire.evaluation.decoding import Decoding
from latentwire.evaluation.merge import merge
from latentwire.evaluation.runner import evaluate
from latentwire.evaluation.table import print_table
from latentwire.prompt import PromptConfig
from latentwire.receivers import Receiver
from latentwire.types import Example

EXAMPLES = [
    Example("squad_v1-train-Pole-0-0", "Roald Amundsen arrived on 14 December 1911.", "Who arrived?", ("Amundsen",)),
    Example("squad_v1-train-City-0-0", "The city has 1,204 inhabitants.", "How many?", ("1,204", "1,204 inhabitants")),
    Example("squad_v1-train-City-0-1", "The city has 1,204 inhabitants.", "What has the city?", ("inhabitants",)),
]
LAYOUT = PromptConfig()


def run(wire, out=None, **given):
    decoding = Decoding(**given.pop("decoding", {}))
    given = {"conditions": ("text", "latents"), "progress": False, "out": out} | given
    return evaluate(wire, EXAMPLES, decoding=decoding, **given)


def lines(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_new_tokens": 0}, "at least 1"),
        ({"min_new_tokens": 33}, r"0 to max_new_tokens \(32\), not 33"),
        ({"eos_ban_steps": -1}, "eos_ban_steps is a number"),
        ({"first_temperature": -0.5}, "greedy"),
        ({"first_temperature": float("nan")}, "greedy"),
        ({"first_top_p": 0.5}, "changes nothing while first_temperature is 0"),
        ({"first_temperature": 1.0, "first_top_p": 0.0}, "a probability above 0"),
        ({"extract": "second-line"}, "none, first-line, layout, not 'second-line'"),
        ({"max_new_tokens": 161}, "too little of the window of llama"),
    ],
)
def test_what_is_impossible_or_would_do_nothing_is_refused(tiny_wire, given, told):
    with pytest.raises(UserError, match=told):
        run(tiny_wire, decoding=given)


def test_the_larger_of_minimum_and_ban_counts():
    assert Decoding(min_new_tokens=2, eos_ban_steps=5).banned == Decoding(min_new_tokens=5).banned == 5
    assert Decoding().banned == 0 and Decoding().changed() == {}
    assert Decoding(extract="layout", max_new_tokens=8).changed() == {"max_new_tokens": 8, "extract": "layout"}


@pytest.mark.parametrize(
    ("text", "line", "layout"),
    [
        ("Amundsen", "Amundsen", "Amundsen"),
        ("Amundsen\nQuestion: When?\nAnswer: 1911", "Amundsen", "Amundsen"),
        ("Answer: 1911", "Answer: 1911", "1911"),
        ("14 December\n1911 Context: The", "14 December", "14 December\n1911"),
        ("", "", ""),
    ],
)
def test_extraction(text, line, layout):
    assert Decoding().answer(text, LAYOUT) == text
    assert Decoding(extract="first-line").answer(text, LAYOUT) == line
    assert Decoding(extract="layout").answer(text, LAYOUT) == layout


def test_answers_are_as_long_as_asked(tiny_wire, monkeypatch):
    seen = []
    original = Receiver.logits

    def counted(self, h):
        seen.append(h.shape)
        return original(self, h)

    monkeypatch.setattr(Receiver, "logits", counted)
    given = {"conditions": ["none"], "receivers": ["llama"]}
    run(tiny_wire, decoding={"max_new_tokens": 5, "min_new_tokens": 5}, **given)
    assert len(seen) == 5 + 1  # and once to judge the gold answers
    seen.clear()
    run(tiny_wire, decoding={"max_new_tokens": 5, "eos_ban_steps": 4}, **given)
    assert len(seen) == 5 + 1


def test_a_drawn_first_token_depends_on_seed_and_question_alone(tiny_wire, tmp_path):
    hot = {"first_temperature": 8.0, "first_top_p": 0.95}
    first = run(tiny_wire, tmp_path / "a", decoding=hot)
    run(tiny_wire, tmp_path / "b", decoding=hot, batch_size=1)
    run(tiny_wire, tmp_path / "c", decoding=hot, seed=1)
    run(tiny_wire, tmp_path / "d")
    said = {name: [line["prediction"] for line in lines(tmp_path / name)] for name in "abcd"}
    assert said["a"] == said["b"] and said["a"] != said["c"] and said["a"] != said["d"]
    assert first["decoding"] == Decoding(**hot).tree()


def test_an_answer_that_was_taken_out_keeps_its_text(tiny_wire, tmp_path, monkeypatch):
    original = evaluate.__globals__["measure"]

    def scripted(*args):
        got = original(*args)
        got.said = ["Amundsen\nQuestion: 1"] * 3
        got.predictions = [Decoding(extract="first-line").answer(text, LAYOUT) for text in got.said]
        return got

    monkeypatch.setattr("latentwire.evaluation.runner.measure", scripted)
    run(tiny_wire, tmp_path / "cut", decoding={"extract": "first-line"})
    assert {(line["prediction"], line["said"]) for line in lines(tmp_path / "cut")} == {
        ("Amundsen", "Amundsen\nQuestion: 1")
    }
    run(tiny_wire, tmp_path / "whole")
    assert all("said" not in line for line in lines(tmp_path / "whole"))


def test_extraction_is_that_of_the_measurement(tiny_wire, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "latentwire.evaluation.measure.answers_of", lambda receiver, batch, *_: ["1,204\nmore"] * len(batch.examples)
    )
    row = run(tiny_wire, tmp_path, conditions=["none"], receivers=["llama"], decoding={"extract": "first-line"})[
        "rows"
    ][0]
    assert [(line["prediction"], line["said"]) for line in lines(tmp_path)] == [("1,204", "1,204\nmore")] * 3
    assert row["em"] == pytest.approx(1 / 3, abs=1e-4)


def test_another_decoding_is_never_mixed(tiny_wire, tmp_path, caplog):
    given = {"conditions": ["none"], "receivers": ["llama"]}
    run(tiny_wire, tmp_path / "a", **given)
    run(tiny_wire, tmp_path / "a", decoding={"max_new_tokens": 4}, **given)
    assert "set aside" in caplog.text and (tmp_path / "a" / "results-1.json").exists()
    run(tiny_wire, tmp_path / "b", **given)
    with pytest.raises(UserError, match="differs in 'decoding'"):
        merge(tmp_path / "joined", [tmp_path / "a", tmp_path / "b"])


def test_results_from_before_there_was_a_choice_are_gone_on_with(tiny_wire, tmp_path, caplog):
    before = run(tiny_wire, tmp_path, conditions=["none"])
    old = {key: value for key, value in before.items() if key not in ("gain", "decoding")}
    (tmp_path / "results.json").write_text(json.dumps(old))
    assert run(tiny_wire, tmp_path, conditions=["none"]) == before and "set aside" not in caplog.text


def test_the_table_tells_another_decoding(tiny_wire, capsys):
    print_table(run(tiny_wire, conditions=["none"], decoding={"max_new_tokens": 3, "extract": "layout"}))
    assert "Decoding: max_new_tokens 3, extract layout." in capsys.readouterr().out
    print_table(run(tiny_wire, conditions=["none"]))
    assert "Decoding:" not in capsys.readouterr().out
