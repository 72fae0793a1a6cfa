"""What is written: whole at any moment, found again, never mixed with results of something else."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from latentwire.evaluation import runner
from latentwire.evaluation.merge import merge
from latentwire.evaluation.runner import evaluate
from latentwire.types import Example

EXAMPLES = [
    Example(
        "squad_v1-train-Pole-0-0", "Roald Amundsen arrived on 14 December 1911.", "Who arrived?", ("Roald Amundsen",)
    ),
    Example("squad_v1-train-City-0-0", "The city has 1,204 inhabitants.", "How many?", ("1,204", "1,204 inhabitants")),
    Example("squad_v1-train-City-0-1", "The city has 1,204 inhabitants.", "What has the city?", ("inhabitants",)),
]
CONDITIONS = ("text", "none", "latents", "wrong")


def run(wire, out=None, **given):
    return evaluate(wire, EXAMPLES, **{"conditions": CONDITIONS, "progress": False, "out": out} | given)


def read(out, name="results.json"):
    return json.loads((out / name).read_text())


def lines(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


class Measuring:
    """Counts what is measured (``seen``: receiver and condition), and interrupts after ``stop`` rows."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.stop = 99
        self.original = runner.measure

    def __call__(self, wire, receiver, condition, *rest):
        if self.stop == len(self.seen):
            raise KeyboardInterrupt
        self.seen.append((receiver.name, type(condition).__name__))
        return self.original(wire, receiver, condition, *rest)


@pytest.fixture
def measured(monkeypatch):
    measuring = Measuring()
    monkeypatch.setattr(runner, "measure", measuring)
    return measuring


def without_seconds(results):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in results["rows"]]


def test_results_hold_what_is_promised(tiny_wire, tmp_path):
    results = run(tiny_wire, tmp_path, ratios=(4, 8), bits=(16, 8), conditions=None)
    assert read(tmp_path) == results
    assert results["wire"]["encoder"] == tiny_wire.fingerprint.hex()
    assert set(results["wire"]["receivers"]) == set(results["wire"]["links"]) == {"llama", "qwen2"}
    assert results["data"]["n"] == 3 and results["seed"] == 0 and results["mode"] == "context"
    assert results["device"] == "cpu" and set(results["versions"]) == {"latentwire", "torch", "transformers", "python"}
    for row in results["rows"]:
        assert list(row) == [
            "receiver", "condition", "mode", "ratio", "bits", "n", "em", "f1", "f1_ci", "nll", "first_token",
            "retention", "positions", "kv_positions", "own_ratio", "bytes", "cut", "seconds", "na",
        ]  # fmt: skip
        assert list(row["seconds"]) == ["encode", "adapt", "prefill", "decode"]
        if row["na"]:
            assert row["f1"] is row["bytes"] is None
            continue
        assert row["f1_ci"][0] <= row["f1"] <= row["f1_ci"][1] and 0 <= row["em"] <= row["f1"] <= 1
        latents = row["condition"] in ("latents", "zero", "shuffled", "wrong")
        assert (row["seconds"]["encode"] > 0) == (row["seconds"]["adapt"] > 0) == latents
        assert row["seconds"]["prefill"] > 0 and row["seconds"]["decode"] > 0
    for line in lines(tmp_path):
        assert list(line) == ["id", "receiver", "condition", "ratio", "bits", "prediction", "answers", "f1"]


def test_retention_is_of_f1_between_none_and_text(tiny_wire, monkeypatch):
    scores = {"text": 0.5, "none": 0.1, "latents": 0.3, "wrong": 0.0}
    original = runner.row_of

    def scored(got, items, key, seed):
        return original(got, items, key, seed) | {"f1": scores[key[1]]}

    monkeypatch.setattr(runner, "row_of", scored)
    rows = run(tiny_wire)["rows"]
    assert {row["condition"]: row["retention"] for row in rows} == {
        "text": 1,
        "none": 0,
        "latents": 0.5,
        "wrong": -0.25,
    }
    assert all(row["retention"] is None for row in run(tiny_wire, conditions=["latents"])["rows"])


def test_a_stopped_run_goes_on_where_it_ended(tiny_wire, tmp_path, measured):
    whole = run(tiny_wire, tmp_path / "whole")
    measured.seen.clear()
    measured.stop = 3
    with pytest.raises(KeyboardInterrupt):
        run(tiny_wire, tmp_path / "cut")
    assert len(read(tmp_path / "cut")["rows"]) == 3
    # stopped while the next row's answers were being written
    with (tmp_path / "cut" / "predictions.jsonl").open("a") as file:
        orphan = {"receiver": "llama", "condition": "wrong", "ratio": 4, "bits": 16, "id": "x", "f1": 0}
        file.write(json.dumps(orphan) + '\n{"receiver": "lla')
    measured.stop = 99
    again = run(tiny_wire, tmp_path / "cut")
    assert measured.seen[3:] == [
        ("llama", "Wrong"),
        *[("qwen2", name) for _, name in measured.seen[:3]],
        ("qwen2", "Wrong"),
    ]
    assert without_seconds(again) == without_seconds(whole)
    assert again["kinds"] == whole["kinds"]
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    measured.seen.clear()
    assert run(tiny_wire, tmp_path / "cut") == again and not measured.seen


def test_more_rows_join_those_that_are_there(tiny_wire, tmp_path, measured):
    run(tiny_wire, tmp_path, conditions=("text", "none", "latents"))
    measured.seen.clear()
    results = run(tiny_wire, tmp_path, conditions=("latents",), ratios=(4, 8), receivers=["llama"])
    assert measured.seen == [("llama", "LatentsOfText")]
    assert len(results["rows"]) == len(read(tmp_path)["rows"]) == 2 * 3 + 1
    assert all(row["retention"] is None or row["condition"] for row in results["rows"])


def test_an_answer_may_hold_what_ends_a_line_elsewhere(tiny_wire, tmp_path, measured, monkeypatch):
    odd = "\u2028".join(["Roald", "Amundsen\u0085"])
    examples = [dataclasses.replace(EXAMPLES[0], answers=(odd,)), *EXAMPLES[1:]]
    given = {"conditions": ("text", "none"), "receivers": ["llama"], "progress": False}
    before = evaluate(tiny_wire, examples, out=tmp_path / "one", **given)
    again = evaluate(tiny_wire, examples, out=tmp_path / "one", **given)
    assert len(measured.seen) == 2 and without_seconds(again) == without_seconds(before)
    merge(tmp_path / "joined", [tmp_path / "one"])
    said = (tmp_path / "joined" / "predictions.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(said[0])["answers"] == [odd]


@pytest.mark.parametrize("change", ["seed", "gain", "rows", "answers", "link", "broken"])
def test_results_of_something_else_are_set_aside(tiny_wire, tmp_path, measured, change, caplog):
    before = run(tiny_wire, tmp_path, conditions=["text"], receivers=["llama"])
    given, examples, link = {}, list(EXAMPLES), tiny_wire.links["llama"]
    if change == "seed":
        given = {"seed": 1}
    elif change == "gain":
        given = {"gain": 2.0}
    elif change == "rows":
        examples = examples[:2]
    elif change == "answers":
        examples[0] = dataclasses.replace(examples[0], answers=("Amundsen",))
    elif change == "broken":
        (tmp_path / "results.json").write_text("{")
    old = {name: tensor.clone() for name, tensor in link.state_dict().items()}
    try:
        if change == "link":
            with torch.no_grad():
                next(link.parameters()).add_(1)
        after = evaluate(
            tiny_wire, examples, conditions=["text"], receivers=["llama"], out=tmp_path, progress=False, **given
        )
    finally:
        link.load_state_dict(old)
    assert len(measured.seen) == 2 and read(tmp_path) == after
    assert len(lines(tmp_path)) == len(examples)
    assert "set aside" in caplog.text
    if change != "broken":
        assert read(tmp_path, "results-1.json") == before
    assert len((tmp_path / "predictions-1.jsonl").read_text().splitlines()) == 3


def test_rows_measured_elsewhere_keep_the_name_of_where(tiny_wire, tmp_path):
    elsewhere = run(tiny_wire, tmp_path, conditions=("text",)) | {"device": "a GPU"}
    (tmp_path / "results.json").write_text(json.dumps(elsewhere))
    assert run(tiny_wire, tmp_path, conditions=("text",))["device"] == "a GPU"
    assert run(tiny_wire, tmp_path, conditions=("text", "none"))["device"] == "a GPU, cpu"
    assert run(tiny_wire, conditions=("none",))["device"] == "cpu"


def test_results_are_replaced_whole(tiny_wire, tmp_path, monkeypatch):
    """A run that dies while it writes leaves the file of the row before."""
    from latentwire.evaluation import results as module

    run(tiny_wire, tmp_path, conditions=["text"], receivers=["llama"])
    before = (tmp_path / "results.json").read_text()

    def dies(*_):
        raise OSError("no space left")

    monkeypatch.setattr(module.os, "replace", dies)
    monkeypatch.setattr(module, "_replace", lambda *_: None)
    with pytest.raises(OSError, match="no space"):
        run(tiny_wire, tmp_path, conditions=["text", "none"], receivers=["llama"])
    assert (tmp_path / "results.json").read_text() == before


def test_a_gain_changes_what_is_injected_and_no_text(tiny_wire):
    conditions = ("text", "latents", "mean-pooled", "replay-anchor")
    plain, loud = run(tiny_wire, conditions=conditions), run(tiny_wire, conditions=conditions, gain=3.0)
    assert (plain["gain"], loud["gain"]) == (1.0, 3.0)
    for one, other in zip(plain["rows"], loud["rows"], strict=True):
        assert (one["nll"] == other["nll"]) == (one["condition"] in ("text", "replay-anchor")), one["condition"]


def test_results_from_before_there_was_a_gain_are_gone_on_with(tiny_wire, tmp_path, measured):
    before = run(tiny_wire, tmp_path, conditions=["none"])
    (tmp_path / "results.json").write_text(json.dumps({k: v for k, v in before.items() if k != "gain"}))
    measured.seen.clear()
    assert run(tiny_wire, tmp_path, conditions=["none"]) == before and not measured.seen
