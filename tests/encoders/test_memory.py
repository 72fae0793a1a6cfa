"""Memory tokens: where they stand, and what they see."""

from __future__ import annotations

import pytest
import torch

from conftest import WORDS
from contracts.matrix import config
from latentwire.encoders import EncoderConfig, memory
from latentwire.errors import UserError


def read(tiny_readers, monkeypatch, texts, **options):
    """What the LM is given: (mask [B, S, S], places [B, S]) of one forward."""
    given = []
    plain = memory.read_states

    def spy(lm, embeds, sees, places):
        given.append((sees, places))
        return plain(lm, embeds, sees, places)

    monkeypatch.setattr(memory, "read_states", spy)
    encoder = config(EncoderConfig, "memory", tiny_readers, **options).build().eval()
    source = encoder.prepare(texts)
    encoder.encode(source, 4)
    return *given[0], source.arrays["count"].tolist(), source.arrays["ids"].shape[1]


def test_memory_tokens_stand_behind_the_text_and_not_behind_its_padding(tiny_readers, monkeypatch):
    _, places, counts, T = read(tiny_readers, monkeypatch, [WORDS[:60], "A"])
    for row, n in enumerate(counts):
        M = -(-n // 4)
        assert places[row, T : T + M].tolist() == list(range(1 + n, 1 + n + M))


def test_spread_memory_tokens_stand_within_the_span_that_they_are_for(tiny_readers, monkeypatch):
    _, places, counts, T = read(tiny_readers, monkeypatch, [WORDS[:60], "A"], spread=True)
    for row, n in enumerate(counts):
        for number in range(-(-n // 4)):
            assert number * 4 <= int(places[row, T + number]) - 1 < min(number * 4 + 4, n)


@pytest.mark.parametrize("causal", [False, True])
def test_causal_means_that_nothing_is_seen_before_it_is_read(tiny_readers, monkeypatch, causal):
    sees, _, _, T = read(tiny_readers, monkeypatch, [WORDS[:60]], causal=causal)
    assert sees[0, T:, :T].all(), "every memory token sees the whole text"
    later = torch.ones_like(sees[0]).triu(1)
    assert bool((sees[0] & later).any()) is not causal


def test_memory_tokens_begin_near_the_words_they_stand_among(tiny_readers):
    for family in ("llama", "gemma"):
        encoder = config(EncoderConfig, "memory", tiny_readers, init=family).build()
        with torch.no_grad():
            words = encoder.lm.get_input_embeddings()(torch.arange(300)).square().mean().sqrt()
            tokens = encoder.memory + encoder.place(memory.sinusoid(torch.arange(16) * 4 + 2, memory.PLACES))
        assert 0.25 < float(tokens.square().mean().sqrt() / words) < 1.5
        assert not torch.allclose(tokens[0], tokens[1])


def test_more_positions_than_the_model_has_are_refused(tiny_readers):
    with pytest.raises(UserError, match=r"take 326 positions, .* has 320; lower encoder.window or set encoder.spread"):
        config(EncoderConfig, "memory", tiny_readers, window=260).build()
    config(EncoderConfig, "memory", tiny_readers, window=260, spread=True).build()
