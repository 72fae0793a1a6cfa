"""The questions that are shown: the right ends of the order, no question twice, and its text only where it is known."""

from __future__ import annotations

import json

import pytest

from latentwire.errors import UserError
from latentwire.experiments.examples import extremes
from latentwire.types import Example


def answers(path, scores):
    """A file of answers. scores: ``{id: {condition: F1 by receiver}}``."""
    with path.open("w") as file:
        for name, by in scores.items():
            for condition, found in by.items():
                for receiver, f1 in found.items():
                    line = {"id": name, "receiver": receiver, "condition": condition, "ratio": None, "bits": None}
                    file.write(json.dumps({**line, "prediction": "so", "answers": ["it"], "f1": f1}) + "\n")
    return path


def test_the_ends_of_the_order(tmp_path):
    scores = {
        f"q{number}": {"text": {"a": 1.0, "b": 0.5}, "latents": {"a": number / 10, "b": number / 10}}
        for number in range(11)
    }
    worst, best = extremes(answers(tmp_path / "p.jsonl", scores), {}, shown=3)
    assert [shown.id for shown in worst] == ["q0", "q1", "q2"]
    assert [shown.id for shown in best] == ["q10", "q9", "q8"]
    assert worst[0].difference == -0.75 and best[0].difference == 0.25
    worst, best = extremes(tmp_path / "p.jsonl", {}, shown=10)
    assert sorted(shown.id for shown in worst + best) == sorted(scores), "each of them once"


def test_of_equal_ones_those_that_were_answered_come_first(tmp_path):
    scores = {
        "neither": {"text": {"a": 0.0}, "latents": {"a": 0.0}},
        "both": {"text": {"a": 1.0}, "latents": {"a": 1.0}},
        "lost": {"text": {"a": 1.0}, "latents": {"a": 0.2}},
        "unmeasured": {"text": {"a": 1.0}, "budget": {"a": 1.0}},
    }
    worst, best = extremes(answers(tmp_path / "p.jsonl", scores), {})
    assert [shown.id for shown in worst] == ["lost", "both"]
    assert [shown.id for shown in best] == ["neither"]


def test_another_question_under_the_same_id_is_not_shown(tmp_path):
    path = answers(tmp_path / "p.jsonl", {"q": {"text": {"a": 1.0}, "latents": {"a": 0.0}}})
    own, other = (Example("q", "A context.", "What?", given) for given in (("it",), ("that",)))
    assert extremes(path, {"q": own})[0][0].asked is own
    assert extremes(path, {"q": other})[0][0].asked is None


def test_a_line_that_lacks_something_is_named(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "q"}\n')
    with pytest.raises(UserError, match=r"p\.jsonl, row 1: no 'answers'"):
        extremes(path, {})
