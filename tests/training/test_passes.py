"""A step done in parts is the same step; one that does not fit into memory is done in parts, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from latentwire.errors import UserError
from latentwire.objectives.contrastive import ContrastiveConfig
from latentwire.training.config import Draw
from latentwire.training.passes import Passes
from latentwire.training.run import train
from latentwire.training.step import Step
from training.conftest import FULL


def gradients(run, source, parts, **change):
    """Loss, parts and gradients of one step, done in so many parts."""
    learning = [p for p in run.step.parameters() if p.requires_grad]
    for p in learning:
        p.grad = None
    generator = torch.Generator().manual_seed(3)
    work = run.step.cut(run.stores[source].draw(0, 0, generator), source, 0.5, generator)
    passes = Passes(run.step, learning, contextlib.nullcontext, None, parts, lambda event: None)
    for name, value in change.items():
        setattr(passes, name, value)
    loss, metrics = passes.run("a kind", work, Draw(4))
    return loss, metrics, [p.grad for p in learning]


PASSAGES = ("gist", "rms")  # look at what is sent, in units of the embeddings of their part


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("source", ["text", "questions"])
def test_judges_count_in_parts_as_they_do_at_once_and_what_is_sent_by_passages(full_run, source, parts, monkeypatch):
    _, metrics, whole = gradients(full_run, source, 1)
    _, metrics_parts, summed = gradients(full_run, source, parts)
    judges = {"kl", "states", *(["first"] if source == "questions" else [])}
    assert judges <= {key.split("/")[-1] for key in metrics}
    for key, value in metrics.items():
        name, what = key.split("/", 1)
        if what.startswith(PASSAGES):
            torch.testing.assert_close(metrics_parts[key], value, atol=0.02, rtol=0.05, msg=key)
        elif what not in ("distinct", "token", "variety"):
            torch.testing.assert_close(metrics_parts[key], value, atol=1e-5, rtol=1e-4, msg=f"{name} {what}")
    heads = {id(p) for p in full_run.step.heads.parameters()}
    learning = [p for p in full_run.step.parameters() if p.requires_grad]
    of_heads = [(got, want) for p, got, want in zip(learning, summed, whole, strict=True) if id(p) in heads]
    assert len(of_heads) == len(heads)
    for got, want in of_heads:
        assert torch.nn.functional.cosine_similarity(got.flatten(), want.flatten(), 0) > 0.98
    # without them, the whole gradient is the same
    cut = Step.cut

    def without_them(self, *args):
        work = cut(self, *args)
        return replace(
            work, weight_N=torch.where(torch.tensor([key in PASSAGES for key in work.active]), 0.0, work.weight_N)
        )

    monkeypatch.setattr(Step, "cut", without_them)
    for got, want in zip(gradients(full_run, source, parts)[2], gradients(full_run, source, 1)[2], strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(got, want, atol=3e-5, rtol=1e-3)


def test_passages_that_are_compared_stay_together_in_at_least_twos(run, monkeypatch):
    monkeypatch.setitem(run.step.objectives, "apart", ContrastiveConfig().build())
    tried: list[int] = []
    monkeypatch.setattr(Passes, "one", scarce(1, tried))
    with pytest.raises(UserError, match="as few as an objective compares"):
        gradients(run, "questions", 1)
    assert tried == [8, 4, 2]


@pytest.mark.parametrize("source", ["text", "questions"])
@pytest.mark.parametrize("parts", [2, 4])
def test_a_step_in_parts_is_the_step_at_once(run, source, parts):
    loss, metrics, whole = gradients(run, source, 1)
    loss_parts, metrics_parts, summed = gradients(run, source, parts)
    torch.testing.assert_close(loss_parts, loss, atol=1e-5, rtol=1e-5)
    for key, value in metrics.items():
        if key.split("/", 1)[1] not in ("distinct", "token", "variety"):
            torch.testing.assert_close(metrics_parts[key], value, atol=1e-5, rtol=1e-4, msg=key)
    for got, want in zip(summed, whole, strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-3)


def test_parts_differ_in_targets_so_their_plain_mean_would_be_another_step(run, monkeypatch):
    from latentwire.training import pieces

    loss, _, _ = gradients(run, "questions", 1)
    monkeypatch.setattr(pieces, "_targets", lambda work, name, step: torch.ones(len(work.pieces), 2))
    assert not torch.allclose(gradients(run, "questions", 4)[0], loss, atol=1e-4)


def test_accumulated_steps_are_steps_of_so_many_passages(tiny_config, tmp_path):
    more = ["steps=3", "eval_every=0", "corpus.windows=24", "stages=[{until: 1.0, questions: 0.5}]"]
    one = train(tiny_config, [*more, "passages=6"], out=tmp_path / "one")
    parts = train(tiny_config, [*more, "passages=2", "accumulate=3"], out=tmp_path / "parts")
    expected, got = load_file(one / "model.safetensors"), load_file(parts / "model.safetensors")
    for name, want in expected.items():
        # AdamW divides by the gradient's size: a gradient of next to nothing may turn its sign
        assert ((got[name] - want).abs() > 1e-4).float().mean() < 0.01, name
    rows = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("one", "parts")]
    for a, b in zip(*rows, strict=True):
        if a["source"] != "dev":
            assert a["loss"] == pytest.approx(b["loss"], abs=2e-3) and a["gradient"] == pytest.approx(
                b["gradient"], 1e-2
            )


def scarce(most: int, tried: list[int]):
    """A pass that has memory for so many passages."""
    plain = Passes.one

    def one(self, work, draw):
        tried.append(work.passages)
        if tried[-1] > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate much")
        return plain(self, work, draw)

    return one


def test_a_step_that_does_not_fit_is_done_in_parts_and_this_is_remembered_and_noted(run, monkeypatch):
    _, _, whole = gradients(run, "questions", 1)
    tried: list[int] = []
    noted: list[dict] = []
    monkeypatch.setattr(Passes, "one", scarce(2, tried))
    known: dict[str, int] = {}
    _, _, summed = gradients(run, "questions", 1, told=noted.append, pieces=known)
    assert tried == [8, 4, 2, 2, 2, 2]
    assert known == {"a kind": 4} and [event["parts"] for event in noted] == [2, 4]
    for got, want in zip(summed, whole, strict=True):
        if want is not None:
            torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-3)
    tried.clear()
    gradients(run, "questions", 1, pieces=known)
    assert tried == [2, 2, 2, 2]


def test_a_passage_that_does_not_fit_alone_ends_the_run_with_a_reason(run, monkeypatch):
    monkeypatch.setattr(Passes, "one", scarce(0, []))
    with pytest.raises(UserError, match="one passage alone"):
        gradients(run, "questions", 1)


def test_work_of_several_processes_is_not_cut_by_one_of_them_alone(run, monkeypatch):
    tried: list[int] = []
    monkeypatch.setattr(Passes, "one", scarce(2, tried))
    with pytest.raises(UserError, match=r"with shard no process can do it in more parts alone.* accumulate=2 "):
        gradients(run, "questions", 1, shared=True)
    assert tried == [8]


def test_a_run_short_of_memory_ends_as_one_that_is_not_and_says_so(tiny_config, tmp_path, monkeypatch):
    ramp = "wire.links.gemma.injection.ramp=10"
    more = ["steps=3", "eval_every=0", "corpus.windows=24", "save_every=2", "passages=4", ramp]
    train(tiny_config, more, out=tmp_path / "rich")
    tried: list[int] = []
    monkeypatch.setattr(Passes, "one", scarce(2, tried))
    poor_wire = load_file(train(tiny_config, more, out=tmp_path / "poor") / "model.safetensors")
    assert poor_wire["links.gemma.injection.steps"] == 3, "a step counts once, however many parts and attempts it takes"
    rich, poor = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("rich", "poor")
    )
    events = [row for row in poor if row["source"] == "event"]
    assert events and all(row["event"] == "out of memory" and row["parts"] == 2 for row in events)
    steps = [[row for row in rows if row["source"] in ("text", "questions")] for rows in (rich, poor)]
    assert [row["step"] for row in steps[1]] == [1, 2, 3]
    # later ones drift: AdamW turns the last bit of a gradient of next to nothing into a step
    losses = [[row["loss"] for row in rows] for rows in steps]
    assert losses[1][0] == pytest.approx(losses[0][0], abs=1e-4) and losses[1] == pytest.approx(losses[0], abs=2e-2)
    # a step is tried at its full size once for each kind
    assert tried.count(4) == len(events)
    newest = sorted((tmp_path / "poor" / "checkpoints").glob("step-*"))[-1]
    assert set(json.loads((newest / "progress.json").read_text())["pieces"].values()) == {2}


def test_a_step_that_is_not_a_number_leaves_the_weights_alone_and_is_counted(tiny_config, tmp_path, monkeypatch):
    plain, losses_of = Step.losses, []

    def losses(self, *args):
        loss, metrics = plain(self, *args)
        if self.wire.training:
            losses_of.append(loss)
            loss = loss * (float("nan") if len(losses_of) == 2 else 1.0)
        return loss, metrics

    monkeypatch.setattr(Step, "losses", losses)
    more = ["steps=4", "log_every=2", "eval_every=0", "save_every=0", "corpus.windows=24", "links=[llama]"]
    wire = load_file(train(tiny_config, more, out=tmp_path / "run") / "model.safetensors")
    assert all(value.isfinite().all() for value in wire.values() if value.is_floating_point())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [row["skipped"] for row in rows if row["source"] != "dev"] == [1, 1]


def test_one_receiver_a_step_has_the_gradient_of_all_on_average(run):
    def encoder_of(names):
        generator = torch.Generator().manual_seed(0)
        batch = run.stores["text"].draw(0, 0, generator)
        work = run.step.cut(batch, "text", 0.5, generator)
        work = replace(work, read={name: work.read[name] for name in names})
        return torch.autograd.grad(run.step.losses(work, 4)[0], run.wire.encoder.pool.weight)[0]

    mean = (encoder_of(["llama"]) + encoder_of(["gemma"])) / 2
    torch.testing.assert_close(encoder_of(["llama", "gemma"]), mean, atol=1e-5, rtol=1e-3)


def test_a_gate_looks_once_a_step_however_many_parts_it_has(tiny_config, tmp_path):
    more = ["steps=2", "eval_every=0", "save_every=0", "corpus.windows=24", *FULL]
    train(tiny_config, [*more, "passages=6"], out=tmp_path / "one")
    train(tiny_config, [*more, "passages=2", "accumulate=3"], out=tmp_path / "parts")
    smoothed = []
    for name in ("one", "parts"):
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()]
        found = [row for row in rows if row["source"] != "dev"]
        fresh = 1 - 0.5 ** (1 / 50)
        value = 0.0
        for row in found:
            value += fresh * ((row["llama/gist/cosine"] + row["gemma/gist/cosine"]) / 2 - value)
            assert row["gate/smooth"] == pytest.approx(value, abs=2e-5)
        smoothed.append([row["gate/smooth"] for row in found])
    assert smoothed[1] == pytest.approx(smoothed[0], abs=2e-4)
