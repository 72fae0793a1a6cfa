"""What stands in diagnostics.jsonl, and that looking changes nothing."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from latentwire.training.config import DiagnosticsConfig, Draw
from latentwire.training.diagnostics import Diagnostics, first_figures
from latentwire.training.run import train


def lines(path):
    return [json.loads(line) for line in path.open()]


def test_a_run_writes_them_at_their_steps_and_ends_as_one_that_does_not(tiny_config, tmp_path):
    more = ["steps=4", "eval_every=0", "corpus.windows=24", "stages=[{until: 0.5}, {until: 1.0, questions: 1.0}]"]
    plain = load_file(train(tiny_config, more, out=tmp_path / "plain") / "model.safetensors")
    assert not (tmp_path / "plain" / "diagnostics.jsonl").exists()
    looked = train(tiny_config, [*more, "diagnostics={every: 2, gradients: 2}"], out=tmp_path / "looked")
    looked = load_file(looked / "model.safetensors")
    assert all(torch.equal(plain[name], looked[name]) for name in plain)

    rows = lines(tmp_path / "looked" / "diagnostics.jsonl")
    steps = {row["step"]: row for row in lines(tmp_path / "looked" / "metrics.jsonl") if row["source"] != "dev"}
    assert [row["step"] for row in rows] == [2, 4]
    assert ["objectives" in row["gradients"] for row in rows] == [False, True]
    for row in rows:
        features = row["gradients"]["features"]
        assert set(features) == {"encoder", *(f"links.{n}.{p}" for n in ("llama", "gemma") for p in ("adapter", "injection"))}  # fmt: skip  # noqa: E501
        # together they are the whole gradient, as it was before it was clipped
        whole = math.sqrt(sum(value**2 for value in features.values()))
        assert whole == pytest.approx(steps[row["step"]]["gradient"], rel=1e-3)
        for name in ("llama", "gemma"):
            found = row["receivers"][name]
            for what, loss in found["losses"].items():
                assert loss == steps[row["step"]][f"{name}/{what}"]
            first = found["first"]
            assert 0 <= first["at1"] <= first["at5"] <= 1 and first["entropy"] > 0 and first["margin"] >= 0
            assert sum(count for _, count, _ in first["predicted"]) == first["rows"] == 8
            assert first["distinct"] == len(first["predicted"])
            assert found["slot_rms"] > 0 and found["embedding_rms"] > 0
        assert row["latents"]["rms"] == pytest.approx(1.0, abs=0.01)  # latents are normalised over their channels
    assert set(rows[1]["gradients"]["objectives"]) == {"answer", "kl"}
    assert set(rows[1]["receivers"]["llama"]["losses"]) == {"answer", "answer/kl"}


def test_first_figures_of_logits_by_hand():
    logits = torch.tensor([[5.0, 1.0, 0.0, 0.0, 0.0, 0.0, -9.0], [3.0, 2.0, 1.0, 0.0, 0.0, 0.0, -9.0]])
    logits = torch.cat([logits, torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 7.0, -9.0]])])
    found = first_figures(logits, torch.tensor([0, 1, 6]), 1, lambda ids: f"<{ids[0]}>")
    assert found["at1"] == pytest.approx(1 / 3, abs=1e-4) and found["at5"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["margin"] == pytest.approx((4 + 1 + 7) / 3, abs=1e-4)
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    assert found["entropy"] == pytest.approx(float(entropy), abs=1e-4)
    assert found["predicted"] == [[0, 2, "<0>"]] and found["distinct"] == 2 and found["rows"] == 3


def weighing(work, **weights):
    """The work with only these objectives weighing anything."""
    return replace(work, weight_N=torch.tensor([weights.get(key, 0.0) for key in work.active]))


def test_the_gradient_of_an_objective_is_what_it_adds(full_run):
    full_run.wire.eval()
    step, store = full_run.step, full_run.stores["text"]
    named = {name: p for name, p in step.named_parameters() if p.requires_grad}
    look = Diagnostics(DiagnosticsConfig(every=1, gradients=1), full_run, named, contextlib.nullcontext)
    generator = torch.Generator().manual_seed(0)
    work = step.cut(store.draw(0, 0, generator), "text", 0.5, generator)
    found = look.objectives(work, Draw(4))
    assert "smooth" in work.active and "first" not in work.active
    # judges and what looks at passages are among them; a closed gate lets nothing through
    assert set(found) == {"continuation", "recall", "kl", "states", "gist", "rms"}
    assert all(value > 0 for value in found.values())
    assert all(p.grad is None for p in named.values())

    def size(work):
        loss, _ = step.losses(work, 4)
        given = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return math.sqrt(sum(float(g.square().sum()) for g in given if g is not None))

    # alone, without the judge, an objective's gradient is that of its own loss
    both = weighing(work, continuation=1.0, recall=1.0, gist=0.5)
    for name, weight in (("continuation", 1.0), ("gist", 0.5)):
        alone = size(weighing(work, **{name: weight}))
        assert look.objectives(both, Draw(4))[name] == pytest.approx(alone, rel=1e-3)
    # a judge's is that of its term: linear in its weight, nothing without rows that weigh something
    half = {key: float(weight) for key, weight in zip(work.active, work.weight_N, strict=True)}
    half["states"] *= 0.5
    assert look.objectives(weighing(work, **half), Draw(4))["states"] == pytest.approx(0.5 * found["states"], rel=1e-3)
    assert look.objectives(weighing(work, states=1.0), Draw(4))["states"] == 0
