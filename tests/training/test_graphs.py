"""Steps that are recorded once and replayed.

There is no GPU here: what is tested is that a step can be recorded at all, and that a replay works on the new rows and
leaves its gradients where the optimiser finds them.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from latentwire.training.graphs import Graphs
from latentwire.training.run import train

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "masked_scatter", "equal.default")
"""Operations that wait for the device, or whose result has a shape that depends on the data."""


class NothingWaits(TorchDispatchMode):
    """Fails where a step would wait for the device."""

    def __torch_dispatch__(self, func, types, args: Any = (), kwargs=None):
        name = str(func)
        assert not any(word in name for word in WAITS), f"{name} waits for the device"
        if "index.Tensor" in name or "index_put" in name:
            assert not any(t is not None and t.dtype is torch.bool for t in args[1]), f"{name} by a mask"
        return func(*args, **(kwargs or {}))


def work(run, source, number):
    store = run.stores[source]
    generator = torch.Generator().manual_seed(number)
    return run.step.cut(store.draw(number, 0, generator), source, 0.5, generator)


def learning(run):
    return [p for p in run.wire.parameters() if p.requires_grad]


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


def test_without_a_gpu_steps_are_ordinary(tiny_config, tmp_path):
    assert (train(tiny_config, ["graphs=true", "steps=2"], out=tmp_path / "run") / "config.json").is_file()
