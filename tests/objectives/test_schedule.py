"""Weights over time, gates, and which objectives go together."""

from __future__ import annotations

import pytest
import torch

from latentwire.config import decode
from latentwire.errors import UserError
from latentwire.objectives import ObjectiveConfig, Schedule
from latentwire.objectives.combination import check
from latentwire.objectives.gate import Gates


def objectives(**named):
    """Configs by name, from their trees."""
    return {name: decode(ObjectiveConfig, tree) for name, tree in named.items()}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(3.0), [3, 3, 3, 3, 3]),
        (Schedule(1.0, "linear", 0.0, begin=0.25, end=0.75), [0, 0, 0.5, 1, 1]),
        (Schedule(0.0, "linear", 2.0, end=0.5), [2, 1, 0, 0, 0]),  # a warm-up that ends
        (Schedule(2.0, "cosine", 0.0), [0, 1, 2, 1, 0]),
        (Schedule(2.0, "cosine", 1.0, begin=0.5), [1, 1, 1, 2, 1]),
        (Schedule(2.0, "delayed", begin=0.5), [0, 0, 2, 2, 2]),
        (Schedule(2.0, "gated", begin=0.5, after="a"), [0, 0, 2, 2, 2]),
    ],
)
def test_a_weight_over_training(schedule, expected):
    assert [schedule.at(progress / 4) for progress in range(5)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "sudden"}, "constant, linear, cosine, delayed, gated"),
        ({"kind": "gated"}, "kind: gated and after:"),
        ({"after": "answer"}, "kind: gated and after:"),
        ({"kind": "gated", "after": "a", "threshold": 1.5}, "cosine from -1 to 1"),
        ({"kind": "gated", "after": "a", "over": 0}, "above 0, not 0"),
        ({"kind": "linear", "begin": 0.8, "end": 0.2}, "begins"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        Schedule(**wrong)


def gates(threshold=0.7, over=1.0) -> Gates:
    named = objectives(
        answer={"type": "answer", "weight": {"kind": "gated", "after": "words", "threshold": threshold, "over": over}},
        words={"type": "embedding-reconstruction"},
    )
    return Gates({key: config.build() for key, config in named.items()})


def test_a_gate_opens_once_the_smoothed_cosine_has_passed_and_closes_again_below():
    gate, weight = gates(), torch.tensor([3.0, 2.0])
    weights, smoothed = [], []
    for cosine in (0.9, 0.9, 0.9, 0.9, 0.1, torch.nan, 0.9, 0.9, 0.9):
        figures = {
            f"{name}/words/cosine": torch.tensor(cosine + off) for name, off in (("llama", 0.05), ("gemma", -0.05))
        }
        smoothed.append(float(gate.look(gate.measured(figures))["gate/answer"]))
        answer, words = gate(("answer", "words"), weight).tolist()
        weights.append(answer)
        assert words == 2
    # halfway from what it was to what is measured, with a half-life of one step; what is no number changes nothing
    assert smoothed[:6] == pytest.approx([0.45, 0.675, 0.7875, 0.84375, 0.471875, 0.471875])
    assert weights == [0, 0, 3, 3, 0, 0, 0, 3, 3]


def test_steps_without_a_measure_leave_a_gate_as_it_is():
    gate = gates(threshold=0.4)
    gate.look(gate.measured({"llama/words/cosine": torch.tensor(0.9)}))
    gate.look(gate.measured({"llama/answer": torch.tensor(2.0)}))
    assert float(gate.smoothed_G) == pytest.approx(0.45)
    again = gates(threshold=0.4)
    again.load_state_dict(gate.state_dict(), strict=True)
    assert again(("answer",), torch.ones(1)).tolist() == [1]


def test_without_gates_there_is_no_state():
    none = Gates({"answer": objectives(answer={"type": "answer"})["answer"].build()})
    assert none.state_dict() == {} and none.look(none.measured({})) == {}


GATED = {"type": "answer", "weight": {"kind": "gated", "after": "other"}}


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"kl": {"type": "kl"}}, "no objective puts rows behind a passage"),
        ({"rms": {"type": "rms"}}, "no objective puts rows behind a passage"),
        ({"c": {"type": "continuation"}, "f": {"type": "first-token"}}, "'f' judges rows of questions"),
        ({"answer": GATED}, "gated on 'other'; objectives are named: answer"),
        ({"answer": GATED, "other": {"type": "rms"}}, "measures no cosine"),
        (
            {"answer": {"type": "answer"}, "a": {"type": "gist-head", "weight": {"kind": "gated", "after": "a"}}},
            "gated on itself",
        ),
        ({"answer": {"type": "answer"}, "kl": {"type": "kl", "taught": 0}}, "kl needs a teacher"),
    ],
)
def test_objectives_that_do_not_go_together_are_refused_by_name(named, message):
    with pytest.raises(UserError, match=message):
        check(objectives(**named))


def test_objectives_that_go_together_pass():
    check(objectives(answer=GATED, other={"type": "gist-head"}, kl={"type": "kl"}, first={"type": "first-token"}))
