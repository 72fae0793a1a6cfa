"""An encoder and a link that are told the ratio: nothing changes until they learn, then each ratio has its own."""

from __future__ import annotations

import torch

from conftest import WORDS
from contracts.matrix import config
from latentwire.adapters.mlp import MLPAdapterConfig
from latentwire.encoders import EncoderConfig
from latentwire.types import Latents


def test_an_encoder_reads_for_its_ratio_once_it_has_learnt_to(tiny_readers):
    torch.manual_seed(0)
    plain = config(EncoderConfig, "lm", tiny_readers, ratios=(4, 8)).build()
    told = config(EncoderConfig, "lm", tiny_readers, ratios=(4, 8), told=True).build()
    assert set(told.state_dict()) - set(plain.state_dict()) == {"tones.4", "tones.8"}
    told.load_state_dict(plain.state_dict(), strict=False)
    source = plain.prepare([WORDS[:150]])
    before = {ratio: plain.encode(source, ratio).z_BMD for ratio in (4, 8)}
    for ratio in (4, 8):
        torch.testing.assert_close(told.encode(source, ratio).z_BMD, before[ratio])
    torch.nn.init.normal_(told.tones["8"])
    torch.testing.assert_close(told.encode(source, 4).z_BMD, before[4])
    assert not torch.allclose(told.encode(source, 8).z_BMD, before[8], atol=1e-3)


def test_a_link_takes_latents_apart_by_how_much_they_stand_for():
    adapter = MLPAdapterConfig(layers=1, head_dim=8, told=True).build(8, 16)
    z, mask, source = torch.randn(3, 2, 8), torch.ones(3, 2, dtype=torch.bool), torch.tensor([8, 8, 8])
    four, mixed = Latents(z, mask, source, torch.tensor([4, 4, 4])), Latents(z, mask, source, torch.tensor([4, 8, 16]))
    torch.testing.assert_close(adapter(four, "context", 1), adapter(mixed, "context", 1))
    torch.nn.init.normal_(adapter.ratio.weight)
    changed = adapter(mixed, "context", 1) - adapter(four, "context", 1)
    assert torch.equal(changed[0], torch.zeros_like(changed[0])) and changed[1:].abs().amax((1, 2)).min() > 1e-3
