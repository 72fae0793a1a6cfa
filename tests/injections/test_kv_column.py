"""Keys and values made layer by layer, from slots of a width of their own."""

from __future__ import annotations

import pytest
import torch

from conftest import FAMILIES, WORDS
from latentwire.adapters.coloured import ColouredAdapterConfig
from latentwire.adapters.mlp import MLPAdapterConfig
from latentwire.errors import UserError
from latentwire.injections.kv_column import KVColumnConfig
from latentwire.injections.kv_prefix import KVPrefixConfig
from latentwire.injections.soft_and_kv import SoftAndKVConfig
from latentwire.link import Link, LinkConfig
from latentwire.receivers.load import load_receiver
from latentwire.types import Latents

WIDER = {"kv-column": KVColumnConfig(width=72), "kv-prefix": KVPrefixConfig(width=72, multiple=1.0)}


def some_latents() -> Latents:
    mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    z = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0)) * mask[..., None]
    return Latents(z, mask, torch.tensor([16, 8]), torch.tensor([4, 4]))


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layers_keys_depend_on_the_blocks_up_to_it_and_on_no_later_one(tiny_readers, family):
    torch.manual_seed(0)
    receiver = load_receiver(tiny_readers[family])
    injection = KVColumnConfig(width=24).build(receiver.geometry)
    slots = torch.randn(2, 3, 24)
    given = (slots, torch.ones(2, 3, dtype=torch.bool), torch.arange(3.0).expand(2, -1), torch.tensor([9, 9]))
    before = injection(*given, receiver).kv
    dict(injection.named_parameters())["blocks.1.3.weight"].normal_()
    after = injection(*given, receiver).kv
    same = [bool(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])) for a, b in zip(before, after, strict=True)]
    assert same == [True] + [False] * (receiver.geometry.layers - 1)


@pytest.mark.parametrize("name", WIDER)
def test_slots_may_be_wider_than_the_receiver(tiny_readers, name):
    receiver = load_receiver(tiny_readers["llama"])
    link = Link(LinkConfig(adapter=MLPAdapterConfig(layers=1, head_dim=8), injection=WIDER[name]), 16, receiver)
    link.calibrate(receiver, [WORDS], 100)
    prefix = link(some_latents(), receiver)
    prefix.kv[-1][1].sum().backward()
    first = dict(link.adapter.named_parameters())["expand.1.weight"]
    assert first.shape == (72, 16) and first.grad is not None and first.grad.abs().sum() > 0


def test_what_makes_slots_of_the_receivers_own_width_says_so(tiny_readers):
    receiver = load_receiver(tiny_readers["llama"])
    link = Link(LinkConfig(adapter=ColouredAdapterConfig(), injection=WIDER["kv-column"]), 16, receiver)
    with pytest.raises(UserError, match=r"leave injection\.width out"):
        link.calibrate(receiver, [WORDS], 100)
    with pytest.raises(UserError, match=r"injection\.kv\.width"):
        SoftAndKVConfig(kv=WIDER["kv-prefix"]).build(receiver.geometry)
    for config in (KVColumnConfig(width=-5), KVPrefixConfig(width=-5)):
        with pytest.raises(UserError, match="a number of channels, or 0 for the receiver's own, not -5"):
            config.build(receiver.geometry)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_slots_are_told_where_they_stand_if_the_receiver_learned_its_positions(tiny_readers, family):
    receiver = load_receiver(tiny_readers[family])
    injection = KVColumnConfig(width=24, stand=True).build(receiver.geometry)
    assert (injection.stand is None) == receiver.geometry.rope == (family != "gpt2")
    slots, mask = torch.randn(1, 1, 24).expand(1, 3, -1), torch.ones(1, 3, dtype=torch.bool)
    given = (slots, mask, torch.tensor([[2.0, 2.5, 7.0]]), torch.tensor([9]), receiver)
    values = torch.stack([v[0, :, -3:] for _, v in injection(*given).kv])
    # rotation is of keys alone: values of equal slots differ only where the place is among what they are made from
    assert torch.equal(values[:, :, 0], values[:, :, 2]) == receiver.geometry.rope


@torch.no_grad()
def test_a_place_between_two_tokens_has_what_lies_between_theirs(tiny_readers):
    receiver = load_receiver(tiny_readers["gpt2"])
    table = receiver.decoder.wpe.weight
    found = receiver.place_embeddings(torch.tensor([[0.0, 3.25, len(table) - 1.0, len(table) + 5.0]]))[0]
    torch.testing.assert_close(found[0], table[0])
    torch.testing.assert_close(found[1], 0.75 * table[3] + 0.25 * table[4])
    torch.testing.assert_close(found[2], table[-1])
    torch.testing.assert_close(found[3], table[-1])
