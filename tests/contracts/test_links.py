"""What every adapter and every injection promises, on receivers of four families."""

from __future__ import annotations

import pytest
import torch

from conftest import FAMILIES, WORDS
from contracts.matrix import ADAPTERS, D_Z, INJECTIONS, config
from latentwire.adapters import AdapterConfig
from latentwire.errors import UserError
from latentwire.injections import InjectionConfig
from latentwire.link import Link, LinkConfig
from latentwire.receivers.attention import own_causal
from latentwire.receivers.load import load_receiver
from latentwire.types import MODES, Latents


def some_latents(counts=(5, 3, 1), seed=0) -> Latents:
    generator = torch.Generator().manual_seed(seed)
    M = max(counts)
    mask = torch.arange(M) < torch.tensor(counts)[:, None]
    z = torch.randn(len(counts), M, D_Z, generator=generator) * mask[..., None]
    return Latents(z, mask, 4 * torch.tensor(counts), torch.full((len(counts),), 4))


@pytest.fixture(params=FAMILIES, scope="module")
def receiver(request, tiny_readers):
    return load_receiver(tiny_readers[request.param])


EVERY = [(a, i, (1, 2)) for a in ADAPTERS for i in INJECTIONS]
"""Adapter, injection, slots: every adapter with every injection."""
SEVERAL = [(a, i, (2,)) for a, i, _ in EVERY if a == ADAPTERS[0] or i == INJECTIONS[0]]
"""Links that cannot give one slot: each adapter and each injection once at least."""


@pytest.fixture(
    params=[*EVERY, *SEVERAL],
    ids=lambda p: f"{p[0]}-{p[1]}-{'or'.join(map(str, p[2]))}",
    scope="module",
)
def link(request, receiver, tiny_readers) -> Link:
    """Made once for all that it promises, so no test may leave it changed."""
    adapter, injection, slots = request.param
    torch.manual_seed(0)
    made = LinkConfig(
        adapter=config(AdapterConfig, adapter, tiny_readers, slots=slots),
        injection=config(InjectionConfig, injection, tiny_readers),
    )
    link = Link(made, D_Z, receiver)
    link.calibrate(receiver, [WORDS, WORDS[:120]], 100)
    return link


def after(receiver, prefix):
    """Logits of two tokens behind a prefix."""
    B = prefix.mask_BM.shape[0]
    own = own_causal(torch.ones(B, 2, dtype=torch.bool))
    positions = prefix.next_B[:, None] + torch.arange(2)
    ids = torch.tensor([[7, 9]]).expand(B, -1)
    return receiver.logits(receiver.states(ids, positions_BT=positions, own_BTT=own, prefix=prefix))


def test_head_and_slots_become_a_prefix_of_the_receivers_shape(link, receiver):
    latents, g = some_latents(), receiver.geometry
    prefix = link(latents, receiver)
    slots, head = link.slots(), receiver.head().mask_BM.shape[1]
    assert len(prefix.kv) == g.layers
    for k, v in prefix.kv:
        assert k.shape == v.shape == (3, g.kv_heads, prefix.mask_BM.shape[1], g.head_dim)
        assert k.dtype == v.dtype == receiver.dtype
    held = link.injection.kv_positions(slots * torch.tensor([5, 3, 1]))
    assert (prefix.count_B - head).tolist() == held.tolist()
    assert prefix.next_B.tolist() == [head + round(4 * n * float(link.fertility)) for n in (5, 3, 1)]
    assert after(receiver, prefix).isfinite().all()


def test_a_latent_is_read_as_any_number_of_slots_the_link_was_made_for(link, receiver):
    latents, head = some_latents(), receiver.head().mask_BM.shape[1]
    for slots in link.config.adapter.slots:
        prefix = link(latents, receiver, slots=slots)
        held = link.injection.kv_positions(slots * torch.tensor([5, 3, 1]))
        assert (prefix.count_B - head).tolist() == held.tolist()
        # the question stands behind the text, however many slots stand for it
        assert prefix.next_B.tolist() == link(latents, receiver).next_B.tolist()
    with pytest.raises(UserError, match="slots for a latent, not 3"):
        link(latents, receiver, slots=3)


def test_padded_latents_and_neighbours_change_nothing(link, receiver):
    latents = some_latents()
    with torch.no_grad():
        together = after(receiver, link(latents, receiver))
        for place, count in enumerate((5, 3, 1)):
            alone = latents.take(torch.tensor([place]))
            alone = Latents(alone.z_BMD[:, :count], alone.mask_BM[:, :count], alone.source_B, alone.ratio_B)
            torch.testing.assert_close(together[place], after(receiver, link(alone, receiver))[0], atol=2e-4, rtol=2e-4)


def test_other_latents_give_other_logits(link, receiver):
    with torch.no_grad():
        one, other = (after(receiver, link(some_latents(seed=s), receiver)) for s in (0, 1))
    assert not torch.allclose(one, other, atol=1e-3)


def test_gradients_reach_link_and_latents_and_never_the_receiver(link, receiver):
    latents = some_latents()
    latents = latents.with_z(latents.z_BMD.requires_grad_())
    after(receiver, link(latents, receiver)).square().mean().backward()
    assert latents.z_BMD.grad is not None
    assert (latents.z_BMD.grad.abs().sum(-1) > 0)[latents.mask_BM].all()
    learnt = [n for n, p in link.named_parameters() if p.grad is not None and p.grad.isfinite().all()]
    link.zero_grad()
    assert {n.partition(".")[0] for n in learnt} >= {"adapter"}
    assert all(p.grad is None and not p.requires_grad for p in receiver.model.parameters())


def test_every_mode_is_read(link, receiver):
    for mode in MODES:
        assert after(receiver, link(some_latents(), receiver, mode)).isfinite().all()


def test_a_text_longer_than_the_window_is_squeezed_into_it(link, receiver):
    latents = some_latents((90,))
    latents = Latents(latents.z_BMD[:, :40], latents.mask_BM[:, :40], torch.tensor([4000]), latents.ratio_B)
    prefix = link(latents, receiver)
    assert int(prefix.next_B[0]) < receiver.geometry.window
    assert after(receiver, prefix).isfinite().all()


@torch.no_grad()
def test_packets_behind_one_another_are_read_and_an_absent_one_changes_nothing(link, receiver):
    link.eval()
    one, other = some_latents(), some_latents((2, 4, 3), seed=1)
    alone, both = link(one, receiver), link(one, receiver, behind=[other])
    assert (both.next_B > alone.next_B).all()
    absent = Latents(0 * other.z_BMD, other.mask_BM & False, 0 * other.source_B, other.ratio_B)
    with_absent = link(one, receiver, behind=[absent])
    assert torch.equal(with_absent.next_B, alone.next_B)
    torch.testing.assert_close(after(receiver, with_absent), after(receiver, alone), rtol=1e-3, atol=1e-3)
    link.train()
