"""What is not kept for the backward pass is made again in it: less memory, the same step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from latentwire.config import decode
from latentwire.errors import UserError
from latentwire.training import setup
from latentwire.training.config import CorpusConfig, TrainConfig
from latentwire.training.judging import token_losses
from latentwire.training.setup import assemble, make_wire
from training.test_passes import gradients


@pytest.fixture
def again(full_run):
    """Switch on what ``recompute: [encoder, receivers]`` and ``head_tokens`` switch on; off again behind the test."""
    stacks = [*full_run.wire.encoder.stacks, *(full_run.wire.frozen[name].layers for name in full_run.names)]

    def switch(on: bool) -> None:
        full_run.step.held = 7 if on else 0
        for stack in stacks:
            stack.again = on

    yield switch
    switch(False)
    full_run.step.fixed = False


@pytest.mark.parametrize(("source", "fixed"), [("text", False), ("questions", True)])
def test_gradients_are_the_same(full_run, again, source, fixed):
    full_run.step.fixed, full_run.step.fast_losses = fixed, token_losses
    loss, metrics, kept = gradients(full_run, source, 1)
    again(True)
    loss_again, metrics_again, made = gradients(full_run, source, 1)
    torch.testing.assert_close(loss_again, loss)
    torch.testing.assert_close(metrics_again, metrics)
    for one, two in zip(kept, made, strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            torch.testing.assert_close(two, one, atol=2e-6, rtol=1e-4)


def test_less_is_kept(full_run, again):
    """Bytes that autograd holds between forward and backward."""

    def held() -> int:
        seen: dict[int, int] = {}

        def pack(x: torch.Tensor) -> torch.Tensor:
            seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        generator = torch.Generator().manual_seed(3)
        work = full_run.step.cut(full_run.stores["text"].draw(0, 0, generator), "text", 0.5, generator)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            loss, _ = full_run.step.losses(work, 4)
        assert loss.requires_grad
        return sum(seen.values())

    whole = held()
    again(True)
    assert held() < 0.7 * whole


def test_the_config_switches_it_on(full_run, again, tiny_tree):
    config = decode(TrainConfig, {**tiny_tree, "recompute": ["encoder", "llama"], "head_tokens": 64})
    run = assemble(config, full_run.wire, full_run.names, {}, torch.device("cpu"))
    assert [run.wire.frozen[name].layers.again for name in ("llama", "gemma")] == [True, False]
    assert run.wire.encoder.stacks and all(stack.again for stack in run.wire.encoder.stacks)
    assert run.step.held == 64


def test_a_name_that_is_none_is_refused(tiny_tree):
    config = decode(TrainConfig, {**tiny_tree, "recompute": ["mistral"]})
    with pytest.raises(UserError, match="recompute names 'mistral'; it may name: encoder, receivers, llama, gemma"):
        make_wire(config, ["Letters were sent from Oslo."], torch.device("cpu"))


def test_a_receiver_that_is_spread_is_refused_and_one_on_another_device_is_not(tiny_wire, monkeypatch):
    monkeypatch.setattr(setup, "_made", lambda *_: (tiny_wire, ["llama"]))
    cpu, other, llama = torch.device("cpu"), torch.device("meta"), tiny_wire.get_receiver("llama")
    monkeypatch.setattr(llama, "devices", [cpu, other])
    with pytest.raises(UserError, match=r"links\.llama\.load\.device_map spreads a receiver over cpu, meta"):
        make_wire(TrainConfig(), [], cpu)
    monkeypatch.setattr(type(llama), "device", other)
    monkeypatch.setattr(llama, "devices", [other, other])
    assert make_wire(TrainConfig(), [], cpu) == (tiny_wire, ["llama"])


def test_a_receiver_with_too_few_positions_is_told_before_the_first_step(tiny_wire, monkeypatch):
    monkeypatch.setattr(setup, "_made", lambda *_: (tiny_wire, ["llama"]))
    monkeypatch.setattr(tiny_wire.get_receiver("llama"), "geometry", SimpleNamespace(rope=False, window=300))
    with pytest.raises(UserError, match="llama has 300 positions, and rows of this corpus may take 384; lower"):
        make_wire(TrainConfig(), [], torch.device("cpu"))
    fewer = TrainConfig(corpus=CorpusConfig(stretch=0.9))
    assert make_wire(fewer, [], torch.device("cpu"))[1] == ["llama"]
