"""Steps that are recorded once and replayed.

There is no GPU here: what is tested is that a step can be recorded at all, and that a replay works on the new rows and
leaves its gradients where the optimiser finds them.
"""

from __future__ import annotations

import contextlib

import pytest
import torch

from contracts.waits import NothingWaits
from latentwire.training.graphs import Graphs
from latentwire.training.run import train
from training.conftest import as_made, made_ready

OPTIONS = (
    "objectives.answer.question=0.2",
    "objectives.kl={type: kl, taught: 0.5, weight: {kind: linear, start_value: 0.5, value: 2.0}}",
    "objectives.gist={type: gist-head, weight: {kind: cosine, start_value: 0.1}}",
    "objectives.first={type: first-tokens, tokens: 1, grown: 4}",
)
"""Weights that change with every step, and something that is trained beside the wire."""


@pytest.fixture(scope="module")
def made(tiny_tree):
    return made_ready(tiny_tree, *OPTIONS)


@pytest.fixture
def run(made):
    return as_made(made)


def work(run, source, number):
    store = run.stores[source]
    generator = torch.Generator().manual_seed(number)
    return run.step.cut(store.draw(number, 0, generator), source, 0.3 + 0.1 * number, generator)


def learning(run):
    return [p for p in run.step.parameters() if p.requires_grad]


def gradients(run, loss):
    for p in learning(run):
        p.grad = None
    loss.backward()
    return [None if p.grad is None else p.grad.clone() for p in learning(run)]


@pytest.mark.parametrize("source", ["text", "questions"])
def test_a_step_of_fixed_shape_is_the_same_step(run, source):
    one = work(run, source, 0)
    loss, parts = run.step.losses(one, 8)
    expected = gradients(run, loss)
    run.step.fixed = True
    loss_fixed, parts_fixed = run.step.losses(one, 8)
    torch.testing.assert_close(loss_fixed, loss)
    assert parts_fixed.keys() == parts.keys()
    for key, value in parts.items():
        torch.testing.assert_close(parts_fixed[key], value)
    for got, want in zip(gradients(run, loss_fixed), expected, strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("source", ["text", "questions"])
def test_nothing_in_a_step_of_fixed_shape_waits_for_the_device(run, source):
    one = work(run, source, 0)
    run.step.fixed = True
    with NothingWaits():
        run.step.losses(one, 4)[0].backward()
    run.step.fixed = False
    with pytest.raises(AssertionError, match=r"waits|mask"), NothingWaits():
        run.step.losses(one, 4)


def test_a_replay_works_on_the_new_rows_and_leaves_its_own_gradients(run):
    run.step.fixed = True
    parameters = learning(run)
    recorded = []

    def record(do, pool):
        """What a CUDA graph does: the same work again, on the same tensors, into the same tensors."""
        left = do()
        kept = [p.grad for p in parameters]

        class Graph:
            def pool(self):
                return "shared"

            def replay(self):
                recorded.append("replayed")
                for p in parameters:
                    p.grad = None
                loss, metrics = do()
                left[0].copy_(loss)
                for key, value in metrics.items():
                    left[1][key].copy_(value)
                for place, p in zip(kept, parameters, strict=True):
                    if place is not None:
                        place.copy_(p.grad)

        recorded.append(pool)
        return Graph(), left

    graphs = Graphs(run.step, parameters, contextlib.nullcontext, warm=1, record=record)
    order = [("text", 4), ("text", 4), ("questions", 8), ("text", 4), ("questions", 8), ("questions", 8), ("text", 4)]
    for number, (source, ratio) in enumerate(order):
        one = work(run, source, number % 3)
        loss, parts = run.step.losses(one, ratio)
        expected = gradients(run, loss)
        for p in parameters:
            p.grad = None
        loss_got, parts_got = graphs.run(one, ratio)
        torch.testing.assert_close(loss_got, loss.detach())
        for key, value in parts.items():
            torch.testing.assert_close(parts_got[key], value)
        for p, want in zip(parameters, expected, strict=True):
            assert (p.grad is None) == (want is None)
            if want is not None:
                torch.testing.assert_close(p.grad, want, atol=1e-6, rtol=1e-5)
                p.grad.mul_(0.5)  # clipping changes gradients in place
    # a kind is recorded when it comes for the second time; later graphs share the memory of the first
    assert recorded == [None, "replayed", "replayed", "shared", "replayed", "replayed", "replayed"]


def test_a_kind_that_cannot_be_recorded_stays_ordinary(run, caplog):
    tried = []

    def record(do, pool):
        tried.append(pool)
        do()  # a recording breaks off in the middle, with gradients half made
        raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture\nmore")

    run.step.fixed = True
    graphs = Graphs(run.step, learning(run), contextlib.nullcontext, warm=1, record=record)
    for number in range(4):
        one = work(run, "text", number)
        loss, _ = run.step.losses(one, 4)
        expected = gradients(run, loss)
        for p in learning(run):
            p.grad = None
        got, _ = graphs.run(one, 4)
        torch.testing.assert_close(got, loss.detach())
        for p, want in zip(learning(run), expected, strict=True):
            assert (p.grad is None) == (want is None)
            if want is not None:
                torch.testing.assert_close(p.grad, want, atol=1e-6, rtol=1e-5)
    assert len(tried) == 1
    assert [r.getMessage() for r in caplog.records if r.name == "latentwire.training.graphs"] == [
        "a step of 4x could not be recorded and stays ordinary, which is slower: "
        "CUDA error: operation failed due to a previous error during capture"
    ]


def test_without_a_gpu_steps_are_ordinary(tiny_config, tmp_path):
    assert (train(tiny_config, ["graphs=true", "steps=2"], out=tmp_path / "run") / "config.json").is_file()
