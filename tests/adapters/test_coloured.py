"""An untrained coloured adapter gives slots with the receiver's own statistics, in the unit that injections expect."""

from __future__ import annotations

import pytest
import torch

from conftest import FAMILIES, WORDS
from latentwire.adapters.coloured import ColouredAdapterConfig
from latentwire.receivers.load import load_receiver
from latentwire.types import Latents


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_slots_have_the_embeddings_mean_and_deviation(tiny_readers, family):
    receiver = load_receiver(tiny_readers[family])
    # dimensions of very different means and sizes, as real models have them
    table = receiver.model.get_input_embeddings().weight
    width = table.shape[1]
    table.mul_(torch.linspace(0.1, 3, width)).add_(torch.linspace(-1, 1, width))
    torch.manual_seed(0)
    adapter = ColouredAdapterConfig().build(64, width)
    adapter.calibrate(receiver, [WORDS])
    torch.nn.init.zeros_(adapter.expand["1"].bias)
    z = torch.randn(1, 20_000, 64)
    latents = Latents(z, torch.ones(1, 20_000, dtype=torch.bool), torch.tensor([80_000]), torch.tensor([4]))
    slots = adapter(latents, "context", 1)[0]
    embedded = receiver.embed(torch.tensor(receiver.prompt.context_ids([WORDS])))[0]
    unit = embedded.square().mean().sqrt()
    assert slots.square().mean().sqrt().item() == pytest.approx(1.0, rel=0.1)
    torch.testing.assert_close(slots.mean(0) * unit, embedded.mean(0), atol=0.05 * unit.item(), rtol=0.05)
    # channels of a random map differ a little in size: standardising makes them equal on average, not one by one
    torch.testing.assert_close(slots.std(0) * unit, embedded.std(0), atol=0.0, rtol=0.4)
