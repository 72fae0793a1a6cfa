"""The penalty that an adapter brings along."""

from __future__ import annotations

import pytest
import torch

from contracts.matrix import ADAPTERS, D_Z, config
from latentwire.adapters import AdapterConfig
from latentwire.adapters.affine import AffineAdapterConfig
from latentwire.errors import UserError


def test_the_penalty_is_nothing_at_the_start_and_its_strength_when_every_channel_is_doubled():
    adapter = AffineAdapterConfig(strength=0.25).build(8, 16)
    assert adapter.penalty().item() == 0
    with torch.no_grad():
        adapter.stretch.fill_(1.0)
    assert adapter.penalty().item() == pytest.approx(0.25)


def test_the_penalty_pulls_to_one_and_nought():
    adapter = AffineAdapterConfig().build(8, 16)
    with torch.no_grad():
        adapter.stretch.normal_()
        adapter.shift.normal_()
    before = adapter.stretch.norm().item(), adapter.shift.norm().item()
    optimizer = torch.optim.SGD([adapter.stretch, adapter.shift], lr=1.0)
    for _ in range(5):
        optimizer.zero_grad()
        adapter.penalty().backward()
        optimizer.step()
    assert adapter.stretch.norm().item() < before[0]
    assert adapter.shift.norm().item() < before[1]


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_penalty_is_a_number_with_a_gradient_or_nothing(name, tiny_readers):
    adapter = config(AdapterConfig, name, tiny_readers).build(D_Z, 32)
    penalty = adapter.penalty()
    assert penalty is None or (penalty.shape == () and penalty.requires_grad)


def test_strength():
    assert AffineAdapterConfig(strength=0.0).build(8, 16).penalty() is None
    with pytest.raises(UserError, match=r"adapter\.strength"):
        AffineAdapterConfig(strength=-1.0).build(8, 16)
