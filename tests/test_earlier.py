"""A link that starts from an earlier wire's: the same weights, strict refusals, and frozen under an optimiser."""

from __future__ import annotations

import pytest
import torch

from conftest import WORDS
from latentwire.adapters.residual import ResidualAdapterConfig
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.injections.kv_prefix import KVPrefixConfig
from latentwire.link import LinkConfig
from latentwire.prompt import PromptConfig
from latentwire.training.optim import MuonAdamW, matrices
from latentwire.wire import Wire, WireConfig

NAMES = ("llama", "qwen2")


def link_config(readers, name, **more) -> LinkConfig:
    given = {"adapter": ResidualAdapterConfig(hidden=1.0), "injection": KVPrefixConfig(1.0), **more}
    return LinkConfig(**{"receiver": str(readers[name]), **given})


def wire_of(readers, links, d_z=16) -> Wire:
    encoder = LMEncoderConfig(d_z=d_z, ratios=(4,), window=64, init=str(readers["llama"]))
    return Wire.create(WireConfig(encoder, links), [WORDS, WORDS[:100]])


@pytest.fixture(scope="module")
def earlier(tiny_readers, tmp_path_factory):
    """A saved wire whose weights are not those of any new one."""
    torch.manual_seed(1)
    wire = wire_of(tiny_readers, {name: link_config(tiny_readers, name) for name in NAMES})
    where = tmp_path_factory.mktemp("earlier")
    wire.save_pretrained(where)
    return wire, where


@pytest.fixture
def start(earlier) -> str:
    return str(earlier[1])


def same(one, other, but=("fertility",)) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine if k not in but)


def test_a_link_starts_from_the_earlier_one_and_the_others_anew(tiny_readers, earlier, start):
    torch.manual_seed(2)
    links = {"llama": link_config(tiny_readers, "llama", start=start), "qwen2": link_config(tiny_readers, "qwen2")}
    wire = wire_of(tiny_readers, links)
    assert same(wire.links["llama"], earlier[0].links["llama"])
    assert not same(wire.links["qwen2"], earlier[0].links["qwen2"])
    assert all(p.requires_grad for p in wire.links.parameters())


def test_tokens_per_source_token_are_those_of_the_encoder_at_hand(tiny_readers, start):
    encoder = LMEncoderConfig(d_z=16, ratios=(4,), window=64, init=str(tiny_readers["qwen2"]))
    torch.manual_seed(2)
    new, started = (
        Wire.create(WireConfig(encoder, {"llama": link_config(tiny_readers, "llama", start=s)}), [WORDS])
        for s in ("", start)
    )
    assert torch.equal(started.links["llama"].fertility, new.links["llama"].fertility)


def test_a_link_that_joins_starts_from_the_earlier_one_too(tiny_readers, earlier, start):
    torch.manual_seed(2)
    wire = wire_of(tiny_readers, {"llama": link_config(tiny_readers, "llama")})
    wire.join("qwen2", link_config(tiny_readers, "qwen2", start=start), [WORDS])
    assert same(wire.links["qwen2"], earlier[0].links["qwen2"])


def test_a_joiner_s_adapter_begins_like_another_link_s(tiny_readers):
    wire = wire_of(tiny_readers, {"llama": link_config(tiny_readers, "llama")})
    wire.join("qwen2", link_config(tiny_readers, "qwen2", like="llama"), [WORDS])
    mine, theirs = (wire.links[name].adapter.state_dict() for name in ("qwen2", "llama"))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
    # what is another shape is made anew
    other = {"adapter": ResidualAdapterConfig(hidden=2.0), "like": "llama"}
    wire.join("gpt2", link_config(tiny_readers, "gpt2", **other), [WORDS])
    mine = wire.links["gpt2"].adapter.state_dict()
    assert {torch.equal(mine[key], theirs[key]) for key in mine if mine[key].shape == theirs[key].shape} == {True}


def test_a_joiner_like_none_is_refused(tiny_readers):
    wire = wire_of(tiny_readers, {"llama": link_config(tiny_readers, "llama")})
    with pytest.raises(UserError, match=r"links\.qwen2\.like is 'nobody', this wire has: llama"):
        wire.join("qwen2", link_config(tiny_readers, "qwen2", like="nobody"), [WORDS])
    with pytest.raises(UserError, match="like needs join"):
        wire_of(tiny_readers, {"llama": link_config(tiny_readers, "llama", like="qwen2")})


@pytest.mark.parametrize("muon", [False, True], ids=["adamw", "muon"])
def test_a_frozen_link_lets_gradients_through_and_never_moves(tiny_readers, earlier, start, muon):
    links = {"llama": link_config(tiny_readers, "llama", start=start, freeze=True)}
    wire = wire_of(tiny_readers, links).train()
    # as the training loop builds it: every parameter of the link, frozen or not
    parameters = [*wire.links["llama"].parameters(), *wire.encoder.parameters()]
    flat = matrices(wire.modules()) if muon else set()
    groups = [{"params": [p for p in parameters if (id(p) in flat) == m], "muon": m} for m in (False, True)]
    optimizer = MuonAdamW([group for group in groups if group["params"]], lr=1e-2, weight_decay=0.1)
    before = [p.detach().clone() for p in wire.encoder.parameters()]
    for _ in range(2):
        latents = wire.encoder.encode(wire.encoder.prepare([WORDS]), 4, 8)
        k, v = wire.prefix("llama", latents).kv[-1]
        (k.square().mean() + v.square().mean()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert same(wire.links["llama"], earlier[0].links["llama"])
    assert any(not torch.equal(p, b) for p, b in zip(wire.encoder.parameters(), before, strict=True))


def test_what_was_frozen_is_whole_when_loaded_and_may_be_trained_again(tiny_readers, earlier, start, tmp_path):
    links = {"llama": link_config(tiny_readers, "llama", start=start, freeze=True)}
    wire_of(tiny_readers, links).save_pretrained(tmp_path)
    # the start has done its part: nothing is read from it again
    again = Wire.from_pretrained(tmp_path)
    assert same(again.links["llama"], earlier[0].links["llama"])
    assert all(p.requires_grad for p in again.links.parameters())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"adapter": ResidualAdapterConfig(hidden=2.0)}, r"links\.llama\.adapter .*hidden 2\.0 \(there 1\.0\)"),
        ({"adapter": ResidualAdapterConfig((1, 2), hidden=1.0)}, r"links\.llama\.adapter .*slots"),
        ({"injection": KVPrefixConfig(2.0)}, r"links\.llama\.injection .*multiple"),
        ({"prompt": PromptConfig(anchor="\nA:")}, r"links\.llama\.prompt .*anchor"),
    ],
    ids=["adapter", "slots", "injection", "prompt"],
)
def test_a_link_of_another_make_is_refused(tiny_readers, start, changes, told):
    with pytest.raises(UserError, match=told):
        wire_of(tiny_readers, {"llama": link_config(tiny_readers, "llama", start=start, **changes)})


def test_another_kind_of_adapter_is_refused_by_its_type(tiny_readers, start):
    plain = LinkConfig(receiver=str(tiny_readers["llama"]), injection=KVPrefixConfig(1.0), start=start)
    with pytest.raises(UserError, match=r"type 'mlp' \(there 'residual'\)"):
        wire_of(tiny_readers, {"llama": plain})


def test_latents_of_another_width_are_refused(tiny_readers, start):
    with pytest.raises(UserError, match="do not fit"):
        wire_of(tiny_readers, {"llama": link_config(tiny_readers, "llama", start=start)}, d_z=32)


def test_another_receiver_is_refused(tiny_readers, start):
    with pytest.raises(UserError, match="a link fits one model only"):
        wire_of(
            tiny_readers,
            {"llama": link_config(tiny_readers, "llama", start=start, receiver=str(tiny_readers["gemma"]))},
        )


def test_a_name_that_the_earlier_wire_has_not_is_refused(tiny_readers, start):
    with pytest.raises(UserError, match="has no link 'gpt2'; it has: llama, qwen2"):
        wire_of(tiny_readers, {"gpt2": link_config(tiny_readers, "gpt2", start=start)})


def test_what_is_no_wire_is_refused(tiny_readers, tmp_path):
    for where, told in ((tmp_path, "no whole wire"), (tmp_path / "none", "there is no directory")):
        with pytest.raises(UserError, match=told):
            wire_of(tiny_readers, {"llama": link_config(tiny_readers, "llama", start=str(where))})


def test_freezing_what_has_learnt_nothing_is_refused(tiny_readers):
    with pytest.raises(UserError, match="would keep random weights"):
        wire_of(tiny_readers, {"llama": link_config(tiny_readers, "llama", freeze=True)})
