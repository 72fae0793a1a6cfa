"""Muon for matrices, AdamW for the rest, in one optimiser that can be saved and taken up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latentwire.training.optim import MuonAdamW, matrices, orthogonal


def groups(model: nn.Module) -> list[dict]:
    flat = matrices([model])
    return [
        {"params": [p for p in model.parameters() if (id(p) in flat) == muon], "lr": 0.01, "muon": muon}
        for muon in (False, True)
    ]


def step(model: nn.Module, optimizer: MuonAdamW, seed: int) -> None:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.LayerNorm(10), nn.Linear(10, 4))


@pytest.mark.parametrize("limit", [0.05, 100.0])
def test_a_fused_step_clips_as_a_pass_over_the_gradients_does(limit):
    found = []
    for fused in (False, True):
        model = net()
        optimizer = MuonAdamW(groups(model), fused=fused)
        for seed in range(3):
            model(torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
            norm = torch.nn.utils.get_total_norm(p.grad for p in model.parameters())
            assert (norm > 0.05) and bool(optimizer.clip(norm, limit))
            optimizer.step()
            optimizer.zero_grad()
        found.append([p.detach() for p in model.parameters()])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_is_not_a_number_reaches_no_weight(fused):
    model = net()
    optimizer = MuonAdamW([{**group, "lr": 0.0} for group in groups(model)], fused=fused, weight_decay=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    for value in (float("nan"), 1.0):
        (model(torch.ones(8, 6)).mean() * value).backward()
        norm = torch.nn.utils.get_total_norm(p.grad for p in model.parameters())
        assert bool(optimizer.clip(norm, 1.0)) == (value == 1.0)
        optimizer.step()
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = 0.01  # the second step counts, and has moments without holes
        if value != 1.0:
            torch.testing.assert_close([p.detach() for p in model.parameters()], before, rtol=0, atol=0)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert not torch.equal(model[0].weight, before[0])


def test_orthogonal_brings_all_singular_values_near_one():
    made = orthogonal(torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_matrices_are_the_weights_of_linear_layers_alone():
    model = nn.ModuleList([nn.Embedding(5, 6), nn.Linear(6, 6), nn.LayerNorm(6)])
    assert matrices([model]) == {id(model[1].weight)}


def test_an_update_of_a_matrix_has_the_size_that_the_rate_says():
    model = nn.Linear(16, 64, bias=False)
    before = model.weight.detach().clone()
    optimizer = MuonAdamW([{"params": [model.weight], "lr": 0.01, "muon": True}], weight_decay=0.0)
    model(torch.randn(32, 16, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    optimizer.step()
    # Moonlight's scale: the root mean square of an update is about 0.2 of the rate, as AdamW's is
    size = (model.weight - before).square().mean().sqrt() / 0.01
    assert 0.1 < size < 0.4


def test_a_run_taken_up_from_its_state_goes_on_as_if_unbroken():
    unbroken, broken = net(), net()
    first, second = MuonAdamW(groups(unbroken)), MuonAdamW(groups(broken))
    for seed in range(3):
        step(unbroken, first, seed)
        step(broken, second, seed)
    fresh = net()
    fresh.load_state_dict(broken.state_dict())
    third = MuonAdamW(groups(fresh))
    third.load_state_dict(second.state_dict())
    for seed in range(3, 6):
        step(unbroken, first, seed)
        step(fresh, third, seed)
    for a, b in zip(unbroken.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_lowers_a_loss():
    model = net()
    optimizer = MuonAdamW(groups(model))
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    goal = x[:, :4].sin()
    losses = []
    for _ in range(60):
        loss = (model(x) - goal).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
