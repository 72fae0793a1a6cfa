"""A few K/V positions for all slots of a text, and both ways of giving slots at once."""

from __future__ import annotations

import pytest
import torch

from conftest import FAMILIES, WORDS
from latentwire.errors import UserError
from latentwire.injections.coprocessor import CoprocessorConfig
from latentwire.injections.kv_prefix import KVPrefixConfig
from latentwire.injections.soft_and_kv import SoftAndKVConfig
from latentwire.injections.soft_tokens import SoftTokensConfig
from latentwire.receivers.load import load_receiver

MASK = torch.tensor([[True] * 6, [True] * 2 + [False] * 4, [False] * 6])


def given(receiver):
    start = receiver.head().mask_BM.shape[1]
    slots = torch.randn(3, 6, receiver.geometry.width, generator=torch.Generator().manual_seed(0))
    return slots, MASK, start + torch.arange(6.0).expand(3, -1), start + torch.tensor([40, 10, 0])


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_grows_by_its_length_in_the_receivers_own_statistics(tiny_readers, family):
    torch.manual_seed(0)
    receiver = load_receiver(tiny_readers[family])
    injection = CoprocessorConfig(length=5, multiple=1.0, gain=1e-6).build(receiver.geometry)
    injection.calibrate(receiver, [WORDS])
    prefix = injection(*given(receiver), receiver)
    head = receiver.head().mask_BM.shape[1]
    assert (prefix.count_B - head).tolist() == [5, 5, 5]
    # turned to their places, spread over each text; without the turn they are plain text's mean key
    places = torch.tensor([[3.5, 11.5, 19.5, 27.5, 35.5], [0.5, 2.5, 4.5, 6.5, 8.5], [-0.5] * 5]) + head
    for layer, (k, v) in enumerate(prefix.kv):
        back = receiver.rotate(k[:, :, head:], -places.clamp_min(0))
        torch.testing.assert_close(back, injection.k_mean[layer][:, None].expand_as(back), atol=1e-4, rtol=1e-4)
        v = v[:, :, head:]
        torch.testing.assert_close(v, injection.v_mean[layer][:, None].expand_as(v), atol=1e-4, rtol=1e-4)


def test_every_weight_learns_and_a_text_without_slots_is_a_number(tiny_readers):
    torch.manual_seed(0)
    receiver = load_receiver(tiny_readers["llama"])
    injection = CoprocessorConfig(multiple=1.0).build(receiver.geometry)
    injection.calibrate(receiver, [WORDS])
    prefix = injection(*given(receiver), receiver)
    head = receiver.head().mask_BM.shape[1]
    assert all(k.isfinite().all() and v.isfinite().all() for k, v in prefix.kv)
    sum(k[:, :, head:].square().sum() + v[:, :, head:].square().sum() for k, v in prefix.kv).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in injection.parameters()
    )


@pytest.mark.parametrize("wrong", [{"length": 0}, {"gain": 0.0}], ids=str)
def test_settings_that_cannot_be_are_refused(tiny_readers, wrong):
    with pytest.raises(UserError, match=r"injection\."):
        CoprocessorConfig(**wrong).build(load_receiver(tiny_readers["llama"]).geometry)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_both_ways_at_once_are_each_way_alone_behind_one_head(tiny_readers, family):
    receiver = load_receiver(tiny_readers[family])
    both = SoftAndKVConfig(SoftTokensConfig(multiple=1.0), KVPrefixConfig(multiple=1.0)).build(receiver.geometry)
    both.calibrate(receiver, [WORDS])
    prefix, soft, kv = (way(*given(receiver), receiver) for way in (both, both.soft, both.kv))
    head = receiver.head().mask_BM.shape[1]
    assert torch.equal(prefix.mask_BM, torch.cat([soft.mask_BM, kv.mask_BM[:, head:]], 1))
    assert torch.equal(prefix.next_B, kv.next_B)
    for got, first, second in zip(prefix.kv, soft.kv, kv.kv, strict=True):
        for g, a, b in zip(got, first, second, strict=True):
            assert torch.equal(g, torch.cat([a, b[:, :, head:]], 2))
