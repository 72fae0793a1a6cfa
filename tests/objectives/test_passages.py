"""Objectives that look at what is sent: zero where it is what they want, and larger elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from contracts.test_objectives import ROW
from latentwire.adapters.linear import LinearAdapterConfig
from latentwire.adapters.mlp import MLPAdapterConfig
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.injections.kv_prefix import KVPrefixConfig
from latentwire.injections.soft_tokens import SoftTokensConfig
from latentwire.link import Link, LinkConfig
from latentwire.objectives.base import Sent
from latentwire.objectives.contrastive import ContrastiveConfig
from latentwire.objectives.embedding_alignment import EmbeddingAlignmentConfig
from latentwire.objectives.embedding_reconstruction import EmbeddingReconstructionConfig
from latentwire.objectives.gist_head import GistHeadConfig
from latentwire.objectives.manifold import ManifoldConfig
from latentwire.objectives.rms import RMSConfig
from latentwire.objectives.scale import ScaleConfig, gains
from latentwire.objectives.span_tokens import SpanTokensConfig
from latentwire.receivers.load import load_receiver
from latentwire.training.step import Step
from latentwire.types import Latents

COUNT = torch.tensor([12, 6])


@pytest.fixture(scope="module", params=["llama", "gemma"])  # Gemma scales its embeddings inside
def receiver(request, tiny_readers):
    return load_receiver(tiny_readers[request.param])


def sent(receiver, ratio=1, link=None) -> Sent:
    """Two texts of 12 and 6 tokens, and slots that are the mean embedding of every ``ratio`` of them; what is masked
    is far off."""
    ids = torch.randint(5, 90, (2, 14), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(14 // ratio) < (COUNT // ratio)[:, None]
    with torch.no_grad():
        tokens = receiver.embed(ids)[:, : 14 // ratio * ratio].float()
    slots = tokens.unflatten(1, (-1, ratio)).mean(2)
    slots = torch.where(mask[..., None], slots, 1e3)
    z = torch.randn(*mask.shape, 8, generator=torch.Generator().manual_seed(1)) * mask[..., None]
    latents = Latents(z, mask, COUNT, torch.full((2,), ratio))
    return Sent(latents, slots, mask, ids, COUNT, receiver, link or torch.nn.Identity())


def loss_of(config, given, own=None) -> float:
    return float(config.build().passage(given, own)[0])


def shuffled(given: Sent) -> Sent:
    """The same slots in another order."""
    slots = given.slots_BSE.clone()
    for row, mask in zip(slots, given.mask_BS, strict=True):
        row[: int(mask.sum())] = row[: int(mask.sum())].flip(0)
    return replace(given, slots_BSE=slots)


def times(given: Sent, factor: float) -> Sent:
    return replace(given, slots_BSE=given.slots_BSE * factor)


def test_slots_that_are_the_tokens_reconstruct_them_in_any_scale(receiver):
    given = sent(receiver)
    loss, figures = EmbeddingReconstructionConfig().build().passage(given, None)
    assert abs(float(loss)) < 1e-5 and figures["cosine"] == pytest.approx(1, abs=1e-5)
    assert abs(loss_of(EmbeddingReconstructionConfig(), times(given, 7.0))) < 1e-5
    assert loss_of(EmbeddingReconstructionConfig(matched=False), times(given, 3.0)) == pytest.approx(4, rel=1e-4)


def test_a_slot_is_compared_with_the_tokens_that_it_stands_for(receiver):
    for config in (EmbeddingReconstructionConfig(), EmbeddingAlignmentConfig()):
        right, wrong = loss_of(config, sent(receiver, 3)), loss_of(config, shuffled(sent(receiver, 3)))
        assert right < wrong - 0.3


def test_slots_that_are_means_of_their_tokens_are_aligned_and_scale_counts(receiver):
    given = sent(receiver, 3)
    assert abs(loss_of(EmbeddingAlignmentConfig(), given)) < 1e-5
    cosine = loss_of(EmbeddingAlignmentConfig(mse=0), times(given, 3.0))
    assert abs(cosine) < 1e-5 < loss_of(EmbeddingAlignmentConfig(), times(given, 3.0)) - 0.1


def test_the_prefix_of_slots_is_aligned_with_the_first_tokens(receiver):
    given, first = sent(receiver, 3), EmbeddingAlignmentConfig(to="first")
    tokens = replace(given, slots_BSE=sent(receiver).slots_BSE[:, : given.mask_BS.shape[1]])
    assert abs(loss_of(first, tokens)) < 1e-5 < loss_of(first, given) - 0.1
    changed = tokens.slots_BSE.clone()
    changed[:, 1:] = 5.0
    assert abs(loss_of(EmbeddingAlignmentConfig(to="first", slots=1), replace(tokens, slots_BSE=changed))) < 1e-5
    assert loss_of(first, replace(tokens, slots_BSE=changed)) > 0.1


def test_with_more_slots_than_tokens_those_that_stand_for_none_are_left_alone(receiver):
    given = sent(receiver)
    doubled = replace(
        given,
        slots_BSE=given.slots_BSE.repeat_interleave(2, 1),
        mask_BS=given.mask_BS.repeat_interleave(2, 1),
    )
    for config in (EmbeddingAlignmentConfig(), EmbeddingReconstructionConfig()):
        assert abs(loss_of(config, doubled)) < 1e-5


def test_a_gist_head_learns_to_rebuild_the_first_tokens_and_sees_its_own_text_alone(receiver):
    torch.manual_seed(0)
    objective, given = GistHeadConfig(tokens=8, width=32).build(), sent(receiver, 2)
    head = objective.fit(torch.nn.Identity(), receiver.geometry.width, receiver, None)
    optimizer = torch.optim.Adam(head.parameters(), 2e-2)
    losses = []
    for _ in range(300):
        loss, figures = objective.passage(given, head)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0] and figures["cosine"] > 0.95

    def now(given: Sent) -> float:
        with torch.no_grad():
            return float(objective.passage(given, head)[0])

    # neither masked slots nor tokens that are not there make a difference, slots that are there do
    other = replace(given, slots_BSE=torch.where(given.mask_BS[..., None], given.slots_BSE, -3.0))
    other = replace(other, ids_BT=torch.where(given.token_mask_BT, given.ids_BT, 7))
    assert now(other) == pytest.approx(now(given))
    swapped = replace(given, slots_BSE=given.slots_BSE.flip(0), mask_BS=given.mask_BS.flip(0))
    assert now(swapped) > 5 * now(given)


def test_a_head_learns_which_tokens_a_latent_stands_for_and_padding_makes_no_difference(receiver):
    torch.manual_seed(0)
    objective = SpanTokensConfig(width=64, share=1).build()
    given = sent(receiver, 3)
    encoder = LMEncoderConfig(d_z=8, ratios=(3,), init=str(receiver.model.name_or_path)).build()
    assert objective.concerns(receiver, encoder)
    head = objective.fit(torch.nn.Identity(), receiver.geometry.width, receiver, encoder)
    optimizer = torch.optim.Adam(head.parameters(), 2e-2)
    for _ in range(200):
        loss, figures = objective.passage(given, head)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 0.3 and figures["right"] == 1

    def now(given: Sent) -> tuple[float, float]:
        with torch.no_grad():
            loss, figures = objective.passage(given, head)
        return float(loss), float(figures["right"])

    padded = torch.where(given.token_mask_BT, given.ids_BT, 7)
    assert now(replace(given, ids_BT=padded)) == pytest.approx(now(given))
    swapped = replace(given, latents=given.latents.take(torch.tensor([1, 0])))
    assert now(swapped)[1] < 0.5
    # where half of the passages are asked, the second text is not
    objective = SpanTokensConfig(width=64, share=0.5).build()
    assert now(given)[1] == 1
    other = replace(given, ids_BT=torch.stack([given.ids_BT[0], given.ids_BT[0]]))
    assert now(other) == pytest.approx(now(given))


@pytest.mark.parametrize(
    ("setting", "says"), [({"width": 0}, "width"), ({"share": 0}, "share"), ({"share": 2}, "share")]
)
def test_a_head_of_tokens_refuses_what_it_cannot_be(setting, says):
    with pytest.raises(UserError, match=f"span-tokens.{says}"):
        SpanTokensConfig(**setting).build()


def test_slots_in_any_order_lie_where_the_embeddings_do_and_a_shift_or_a_stretch_does_not(receiver):
    given = sent(receiver)
    assert abs(loss_of(ManifoldConfig(), shuffled(given))) < 1e-5
    moved = replace(given, slots_BSE=given.slots_BSE + 2 * given.token_rms)
    _, figures = ManifoldConfig().build().passage(moved, None)
    assert figures["mean"] == pytest.approx(4, rel=1e-3) and figures["covariance"] < 1e-4
    assert loss_of(ManifoldConfig(covariance=0), moved) == pytest.approx(4, rel=1e-3)
    # deviations twice as large are covariances four times as large
    assert loss_of(ManifoldConfig(mean=0), times(given, 2.0)) == pytest.approx(9, rel=1e-3)


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_slots_too_large_cost_what_slots_too_small_do(receiver, factor):
    given = sent(receiver)
    together = RMSConfig(each=False)
    assert abs(loss_of(together, given)) < 1e-6
    assert loss_of(together, times(given, factor)) == pytest.approx(math.log(4) ** 2, rel=1e-3)


def test_each_slot_for_itself_costs_where_sizes_differ_among_themselves(receiver):
    given = sent(receiver)
    rms = given.slots_BSE.square().mean(-1, keepdim=True).sqrt()
    even = replace(given, slots_BSE=given.slots_BSE / rms * given.token_rms)
    stretch = torch.where(torch.arange(14) % 2 == 0, 1.5**0.5, 0.5**0.5)[:, None]  # the mean square stays
    uneven = replace(even, slots_BSE=even.slots_BSE * stretch)
    assert abs(loss_of(RMSConfig(), even)) < 1e-6
    assert abs(loss_of(RMSConfig(each=False), uneven)) < 1e-6
    assert loss_of(RMSConfig(), uneven) == pytest.approx((math.log(1.5) ** 2 + math.log(0.5) ** 2) / 8, rel=1e-3)


def link_of(receiver, adapter, injection) -> Link:
    return Link(LinkConfig(adapter=adapter, injection=injection), 8, receiver)


def test_a_learned_scale_is_held_near_1(receiver):
    for link in (
        link_of(receiver, LinearAdapterConfig(), KVPrefixConfig(multiple=1.0)),
        link_of(receiver, MLPAdapterConfig(layers=1, head_dim=8), SoftTokensConfig(multiple=1.0)),
    ):
        given, objective = sent(receiver, link=link), ScaleConfig().build()
        objective.fit(link, receiver.geometry.width, receiver, None)
        assert float(objective.passage(given, None)[0].detach()) == 0
        (gain,) = gains(link)
        with torch.no_grad():
            gain.fill_(3.0)
        loss, figures = objective.passage(given, None)
        loss.backward()
        assert float(loss.detach()) == 4 and float(figures["gain"]) == 3 and float(gain.grad) == 4


def test_a_link_without_a_gain_has_no_scale_to_hold(receiver):
    link = link_of(receiver, MLPAdapterConfig(layers=1, head_dim=8), KVPrefixConfig(multiple=1.0))
    with pytest.raises(UserError, match=f"the link of '{receiver.name}' has none"):
        ScaleConfig().build().fit(link, receiver.geometry.width, receiver, None)


@pytest.mark.parametrize("config", [EmbeddingReconstructionConfig, EmbeddingAlignmentConfig, ManifoldConfig])
def test_slots_of_another_width_cannot_be_compared_with_embeddings(receiver, config):
    with pytest.raises(UserError, match=r"16 wide \(injection.width\)"):
        config().build().fit(torch.nn.Identity(), 16, receiver, None)
    assert (
        GistHeadConfig().build().fit(torch.nn.Identity(), 16, receiver, None) is not None
    )  # it has a map between them


def test_a_step_refuses_an_objective_that_does_not_go_with_a_link(tiny_wire):
    with pytest.raises(UserError, match="scale holds a link's learned gain"):
        Step(tiny_wire, {"scale": ScaleConfig().build()}, ROW, 6, ["llama"])


def test_latents_of_texts_are_pushed_apart(receiver):
    given = sent(receiver)
    apart, alike = torch.zeros(2, 14, 8), torch.ones(2, 14, 8)
    apart[0, :, 0], apart[1, :, 1] = 1.0, 1.0

    def with_z(z):
        return replace(given, latents=given.latents.with_z(z * given.mask_BS[..., None]))

    assert loss_of(ContrastiveConfig(), with_z(alike)) == pytest.approx(math.log(2))
    assert loss_of(ContrastiveConfig(), with_z(apart)) == pytest.approx(math.log(1 + math.exp(-10)), rel=1e-2)
    hinge = ContrastiveConfig(kind="hinge", margin=0.2)
    assert loss_of(hinge, with_z(alike)) == pytest.approx(0.8) and loss_of(hinge, with_z(apart)) == 0
    z = (alike + 0.1 * apart).requires_grad_()
    for config in (ContrastiveConfig(), hinge):
        before = ContrastiveConfig().build().passage(with_z(z), None)[1]["alike"]
        (grad,) = torch.autograd.grad(config.build().passage(with_z(z), None)[0], z)
        after = ContrastiveConfig().build().passage(with_z(z - 0.5 * grad / grad.norm()), None)[1]["alike"]
        assert after < before


def test_one_text_has_none_to_be_told_from(receiver):
    given = sent(receiver)
    with pytest.raises(UserError, match="at least two passages"):
        loss_of(ContrastiveConfig(), replace(given, latents=given.latents.take(torch.tensor([0]))))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (EmbeddingReconstructionConfig(mse=-1), "embedding-reconstruction.mse"),
        (EmbeddingAlignmentConfig(to="last"), "spans or first"),
        (EmbeddingAlignmentConfig(slots=-1), "embedding-alignment.slots"),
        (GistHeadConfig(tokens=0), "gist-head.tokens"),
        (ManifoldConfig(mean=0, covariance=0), "manifold.mean"),
        (ContrastiveConfig(kind="triplet"), "infonce or hinge"),
        (ContrastiveConfig(temperature=0), "contrastive.temperature"),
        (ContrastiveConfig(margin=1), "contrastive.margin"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong.build()
