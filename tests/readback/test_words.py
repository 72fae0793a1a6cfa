"""The nearest words: of a text's own values they are its own tokens, and a link without slots of its own says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conftest import WORDS
from latentwire.errors import UserError
from latentwire.injections import InjectionConfig
from latentwire.link import Link, LinkConfig
from latentwire.readback import nearest_words
from latentwire.readback.places import only
from latentwire.readback.words import alone, top_tokens
from latentwire.wire import Wire

FACT = (
    "The Norwegian expedition to the South Pole was led by Roald Amundsen. He and four others arrived at the pole on "
    "14 December 1911, five weeks before a British party."
)
OTHER = "Chopin was born in a village west of Warsaw, and his father taught French at the school of the city."


@pytest.fixture
def with_injection(tiny_wire, monkeypatch):
    """The tiny wire with its `llama` reading in another way."""

    def made(kind: str) -> Wire:
        receiver = tiny_wire.get_receiver("llama")
        link = Link(LinkConfig(injection=InjectionConfig.known()[kind]()), 32, receiver)
        link.calibrate(receiver, [WORDS], 60)
        monkeypatch.setitem(tiny_wire.links._modules, "llama", link)
        return tiny_wire

    return made


def test_a_token_is_nearest_to_its_own_values(tiny_wire, monkeypatch):
    receiver = tiny_wire.get_receiver("llama")
    monkeypatch.setattr("latentwire.readback.words.CHUNK", 50)  # best ones are kept from part to part
    ids = torch.tensor([7, 90, 210, 300])
    values_LPW = alone(receiver, ids, 1)
    mean_L1W = alone(receiver, torch.arange(len(receiver.tokenizer)), 1).mean(1, keepdim=True)
    slots_LPW = torch.nn.functional.normalize(values_LPW - mean_L1W, dim=-1)
    cosine, token = top_tokens(receiver, slots_LPW, (1, 4, 1), 3, 1)
    assert token[:, 0].tolist() == ids.tolist()
    torch.testing.assert_close(cosine[:, 0], torch.ones(4), atol=1e-4, rtol=0)
    # as two slots of two latents each, a latent has the nearest of both
    pairs, words = top_tokens(receiver, slots_LPW, (1, 2, 2), 2, 1)
    assert [sorted(row) for row in words.tolist()] == [[7, 90], [210, 300]]
    torch.testing.assert_close(pairs, torch.ones(2, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["kv-prefix", "kv-column", "soft-tokens", "soft-and-kv"])
def test_every_latent_has_words(with_injection, kind):
    wire = with_injection(kind)
    packet = wire.encode([WORDS], ratio=4)[0]
    found = nearest_words(wire, "llama", packet, WORDS, k=3)
    assert [each.latent for each in found] == list(range(len(packet.z_MD)))
    for each in found:
        cosines = [cosine for _, cosine in each.words]
        assert len(set(dict(each.words))) == 3 and cosines == sorted(cosines, reverse=True)
        assert each.strength > 0


@pytest.mark.parametrize("kind", ["coprocessor", "cross-attention"])
def test_a_link_without_positions_of_single_latents_says_so(with_injection, kind):
    wire = with_injection(kind)
    with pytest.raises(UserError, match="single latents"):
        nearest_words(wire, "llama", wire.encode([WORDS], ratio=4)[0], WORDS)


def test_private_latents_keep_their_numbers(tiny_wire, monkeypatch):
    packet = tiny_wire.encode([WORDS], ratio=4)[0]

    def odd(latents, name):
        return replace(latents, z_BMD=latents.z_BMD[:, 1::2], mask_BM=latents.mask_BM[:, 1::2])

    monkeypatch.setattr(tiny_wire.encoder, "part", odd)
    found = nearest_words(tiny_wire, "qwen2", packet, WORDS)
    assert [each.latent for each in found] == list(range(len(packet.z_MD)))[1::2]


def test_only_some_slots_are_seen(tiny_wire):
    latents = tiny_wire.encode_latents([WORDS, WORDS[:60]], 4)
    prefix = tiny_wire.prefix("llama", latents)
    head = tiny_wire.get_receiver("llama").head().mask_BM.shape[1]
    seen = only(prefix, head, torch.tensor([0, 2]), torch.tensor([3, 999]), latents.mask_BM.shape[1]).mask_BM
    assert seen[:, :head].all()
    assert seen[0, head:].nonzero()[:, 0].tolist() == [0, 1, 2]
    assert seen[1, head:].nonzero()[:, 0].tolist() == list(range(2, int(latents.count_B[1])))


def test_the_nearest_words_of_the_shipped_wire_stand_in_the_text():
    wire = Wire.from_pretrained("sandbox", receivers=["llama"])
    receiver = wire.get_receiver("llama")
    receiver.geometry = replace(receiver.geometry, vocab=3000)  # the most frequent tokens: a test has little time
    found = nearest_words(wire, "llama", wire.encode([FACT], ratio=4)[0], OTHER)
    near = [each.words[0][0].lower() for each in found]
    assert sum(word in FACT.lower() for word in near) >= 0.6 * len(near), near
    assert sum(word in OTHER.lower() for word in near if len(word) > 3) <= 0.2 * len(near), near
    assert all(0.5 < each.strength < 3 for each in found)
