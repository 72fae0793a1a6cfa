"""Dropout, and what an untrained residual adapter is."""

from __future__ import annotations

import pytest
import torch

from latentwire.adapters.mlp import place_features
from latentwire.adapters.residual import ResidualAdapterConfig
from latentwire.errors import UserError
from latentwire.types import Latents

LATENTS = Latents(torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool), torch.tensor([12, 12]), torch.full((2,), 4))


def test_untrained_it_is_the_linear_map_with_places():
    adapter = ResidualAdapterConfig().build(8, 16)
    expected = adapter.expand(LATENTS.z_BMD, 1) + adapter.place(place_features(LATENTS, 1))
    torch.testing.assert_close(adapter(LATENTS, "context", 1), expected)


def test_dropout_acts_in_training_alone():
    adapter = ResidualAdapterConfig(dropout=0.5).build(8, 16)
    torch.nn.init.normal_(adapter.mlp[-1].weight)
    one, other = (adapter(LATENTS, "context", 1) for _ in range(2))
    assert not torch.equal(one, other)
    adapter.eval()
    one, other = (adapter(LATENTS, "context", 1) for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("wrong", [{"hidden": 0.0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=f"adapter.{next(iter(wrong))}"):
        ResidualAdapterConfig(**wrong).build(8, 16)
