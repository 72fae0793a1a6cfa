"""Answers weighed by all receivers: against a scoring of one answer at a time, and what may stand in a file."""

from __future__ import annotations

import json

import pytest
import torch

from latentwire.errors import UserError
from latentwire.evaluation import runner
from latentwire.evaluation.metrics import exact_match, f1
from latentwire.evaluation.runner import evaluate
from latentwire.evaluation.table import print_table
from latentwire.types import Example

EXAMPLES = [
    Example("squad_v1-train-Pole-0-0", "Roald Amundsen arrived on 14 December 1911.", "Who arrived?", ("Amundsen",)),
    Example("squad_v1-train-City-0-0", "The city has 1,204 inhabitants.", "How many?", ("1,204", "1,204 inhabitants")),
    Example("squad_v1-train-City-0-1", "The city has 1,204 inhabitants.", "What has the city?", ("inhabitants",)),
]
JOINT = "joint:llama+qwen2"


def run(wire, out=None, **given):
    return evaluate(
        wire, EXAMPLES, **{"conditions": ("text", "none", "latents"), "progress": False, "out": out} | given
    )


def lines(out, receiver, condition="latents"):
    found = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    return [line for line in found if (line["receiver"], line["condition"]) == (receiver, condition)]


@torch.no_grad()
def alone(wire, name, example, answer, condition):
    """Nll per token of one answer behind one prompt, without a batch."""
    receiver = wire.get_receiver(name)
    prompt = receiver.prompt
    if condition == "latents":
        prefix = wire.prefix(name, wire.latents(wire.encode([example.context], 4)), "context")
        before = []
    else:
        prefix, before = receiver.head(), prompt.context_ids([example.context])[0]
    asked, ids = before + prompt.question_ids([example.question])[0], prompt.answer_ids([answer])[0]
    row = torch.tensor([asked + ids[:-1]])
    T = row.shape[1]
    h = receiver.states(
        row,
        positions_BT=prefix.next_B[:, None] + torch.arange(T),
        own_BTT=torch.ones(1, T, T, dtype=torch.bool).tril(),
        prefix=prefix,
    )
    logits = receiver.logits(h[0, len(asked) - 1 :])
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids)))


@pytest.mark.parametrize("condition", ["text", "latents"])
def test_the_joint_answer_is_that_of_the_best_mean_score(tiny_wire, tmp_path, condition):
    run(tiny_wire, tmp_path, joint=["text", "latents"])
    own = {name: lines(tmp_path, name, condition) for name in ("llama", "qwen2")}
    differ = 0
    for i, line in enumerate(lines(tmp_path, JOINT, condition)):
        scores = {}
        for name, said in own.items():
            each = [alone(tiny_wire, judge, EXAMPLES[i], said[i]["prediction"], condition) for judge in own]
            scores[name] = sum(each) / 2
            assert line["scores"][name] == pytest.approx(scores[name], abs=2e-3)
        best = min(scores, key=lambda name: scores[name])
        assert line["chosen"] == best and line["prediction"] == own[best][i]["prediction"]
        differ += len({said[i]["prediction"] for said in own.values()}) > 1
    assert differ  # two readers that say the same would test nothing


def test_joint_rows_have_agreement_and_an_oracle_that_nobody_beats(tiny_wire, tmp_path, monkeypatch):
    # random readers are never right: they are made to say what is
    script = {"llama": ["Amundsen", "1,204", "schools"], "qwen2": ["Scott", "1,204", "inhabitants"]}
    original = runner.measure

    def scripted(wire, receiver, condition, terms, tick):
        got = original(wire, receiver, condition, terms, tick)
        got.predictions = list(script[receiver.name])
        return got

    monkeypatch.setattr(runner, "measure", scripted)
    results = run(tiny_wire, tmp_path, joint=["latents"])
    (row,) = [row for row in results["rows"] if row["receiver"] == JOINT]
    assert row["agreement"] == pytest.approx(1 / 3, abs=1e-4)
    assert row["oracle_f1"] == row["oracle_em"] == 1.0
    own = [r for r in results["rows"] if r["condition"] == "latents" and r["receiver"] != JOINT]
    assert all(r["f1"] == pytest.approx(2 / 3, abs=1e-4) for r in own) and row["f1"] <= row["oracle_f1"]
    assert row["kv_positions"] == sum(r["kv_positions"] for r in own) and row["bytes"] == own[0]["bytes"]
    assert sum(row["chosen"].values()) == pytest.approx(1, abs=1e-3)
    said = [line["prediction"] for line in lines(tmp_path, JOINT)]
    assert row["f1"] == pytest.approx(sum(f1(s, e.answers) for s, e in zip(said, EXAMPLES, strict=True)) / 3, abs=1e-4)
    exact = sum(exact_match(s, e.answers) for s, e in zip(said, EXAMPLES, strict=True)) / 3
    assert row["em"] == pytest.approx(exact, abs=1e-4)


def test_joint_rows_are_kept_and_belong_to_their_receivers(tiny_wire, tmp_path, monkeypatch):
    before = run(tiny_wire, tmp_path, joint=["text", "none", "latents"])
    assert [row["receiver"] for row in before["rows"]][-3:] == [JOINT] * 3
    monkeypatch.setattr(runner, "weigh", None)
    again = run(tiny_wire, tmp_path, joint=["text", "none", "latents"], receivers=["qwen2", "llama"])
    assert again["rows"][-3:] == before["rows"][-3:]
    assert len(lines(tmp_path, JOINT)) == 3
    # without being asked for, none is made
    assert not [row for row in run(tiny_wire)["rows"] if row["receiver"].startswith("joint")]


def test_answers_that_were_not_given_are_not_weighed(tiny_wire):
    results = run(tiny_wire, conditions=["same-bytes"], joint=["same-bytes"])
    assert results["rows"][-1]["receiver"] == JOINT and "llama has no answers" in results["rows"][-1]["na"]
    with pytest.raises(UserError, match="has only 'llama'"):
        run(tiny_wire, receivers=["llama"], joint=["latents"])
    with pytest.raises(UserError, match=r"'zero' cannot be weighed.*text, none, latents"):
        run(tiny_wire, joint=["zero"])


def test_the_table_shows_joint_rows_and_names_the_oracle(tiny_wire, capsys):
    print_table(run(tiny_wire, joint=["text"]))
    out = " ".join(capsys.readouterr().out.split())
    assert JOINT in out and "text: all receivers answer alike on" in out and "an oracle that knew the best" in out
