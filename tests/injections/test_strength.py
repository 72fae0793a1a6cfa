"""Every injection may be turned up or down, and is what it was afterwards."""

from __future__ import annotations

import pytest
import torch

from conftest import WORDS
from contracts.matrix import D_Z, INJECTIONS, config
from latentwire.injections import InjectionConfig
from latentwire.injections.cross_attention import CrossAttention
from latentwire.link import Link, LinkConfig
from latentwire.receivers.load import load_receiver
from latentwire.types import Latents

LATENTS = Latents(
    torch.randn(2, 3, D_Z), torch.ones(2, 3, dtype=torch.bool), torch.tensor([12, 12]), torch.tensor([4, 4])
)


@pytest.fixture(scope="module")
def receiver(tiny_readers):
    return load_receiver(tiny_readers["llama"])


@pytest.fixture(params=INJECTIONS)
def link(request, receiver, tiny_readers):
    torch.manual_seed(0)
    link = Link(LinkConfig(injection=config(InjectionConfig, request.param, tiny_readers)), D_Z, receiver)
    link.calibrate(receiver, [WORDS, WORDS[:120]], 100)
    return link.eval()


@torch.no_grad()
def numbers(link, receiver, gain=None):
    """All that a prefix holds of the latents."""
    if gain is None:
        prefix = link(LATENTS, receiver)
    else:
        with link.injection.at_strength(gain):
            prefix = link(LATENTS, receiver)
    made = [x for pair in prefix.kv for x in pair] + [x for b in prefix.blocks for x in (b.k_BHMK, b.v_BHMK)]
    return torch.cat([x.flatten() for x in made])


def test_another_strength_injects_something_else_and_one_is_as_trained(link, receiver):
    plain = numbers(link, receiver)
    assert torch.equal(numbers(link, receiver, 1.0), plain)
    weak, strong = numbers(link, receiver, 0.5), numbers(link, receiver, 4.0)
    assert not torch.allclose(weak, plain) and not torch.allclose(strong, plain)
    assert torch.equal(numbers(link, receiver), plain)


def test_an_error_leaves_the_strength_as_it_was(link, receiver):
    plain = numbers(link, receiver)
    with pytest.raises(RuntimeError, match="stopped"), link.injection.at_strength(3.0):
        raise RuntimeError("stopped")
    assert torch.equal(numbers(link, receiver), plain)


def of(kind, tiny_readers, receiver, **more):
    torch.manual_seed(0)
    link = Link(LinkConfig(injection=config(InjectionConfig, kind, tiny_readers, **more)), D_Z, receiver)
    link.calibrate(receiver, [WORDS, WORDS[:120]], 100)
    return link.eval()


@torch.no_grad()
def test_what_is_multiplied(tiny_readers, receiver):
    soft = of("soft-tokens", tiny_readers, receiver).injection
    slots = torch.randn(1, 2, receiver.geometry.width)
    plain = soft.vectors(slots)
    with soft.at_strength(2.0):
        torch.testing.assert_close(soft.vectors(slots), 2 * plain)
    # made values: what they differ by from the receiver's mean one
    made = of("kv-prefix", tiny_readers, receiver)
    head = receiver.head().mask_BM.shape[1]
    mean_HK = made.injection.v_mean[0]
    off = made(LATENTS, receiver).kv[0][1][:, :, head:] - mean_HK[:, None]
    with made.injection.at_strength(3.0):
        torch.testing.assert_close(made(LATENTS, receiver).kv[0][1][:, :, head:] - mean_HK[:, None], 3 * off)
    # what a block adds to the states of its layer
    crossing = of("cross-attention", tiny_readers, receiver, gate=0.5)
    assert isinstance(crossing.injection, CrossAttention)
    h = torch.randn(2, 4, receiver.geometry.width)
    (added,) = [crossing(LATENTS, receiver).blocks[0](h) - h]
    with crossing.injection.at_strength(2.0):
        torch.testing.assert_close(crossing(LATENTS, receiver).blocks[0](h) - h, 2 * added)
