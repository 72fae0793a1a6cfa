"""Words of a receiver beside an anchor: both are of the same characters, and the anchor matters."""

from __future__ import annotations

import pytest
import torch

from conftest import WORDS
from contracts.matrix import config
from latentwire.encoders import EncoderConfig
from latentwire.errors import UserError


def build(tiny_readers, **options):
    torch.manual_seed(0)
    return config(EncoderConfig, "aligned", tiny_readers, **options).build().eval()


@pytest.mark.parametrize("stretch", [1.5, 0.2])
def test_words_and_anchor_of_a_piece_are_of_the_same_characters(tiny_readers, stretch):
    encoder = build(tiny_readers, stretch=stretch)
    source = encoder.prepare([WORDS, "A"])
    arrays = source.arrays
    assert arrays["anchor_count"].max() <= encoder.room == min(int(64 * stretch), 94)
    own, told = encoder.tokenizer, encoder.sentences.tokenizer
    begin = len(encoder.sentences.begin)
    for row in range(len(source.owner_P)):
        words = own.decode(arrays["ids"][row, : arrays["count"][row]])
        ids = arrays["anchor"][row, begin : begin + arrays["anchor_count"][row]].tolist()
        assert ids == told(words, add_special_tokens=False)["input_ids"]
    whole = [i for row in range(len(source.owner_P) - 1) for i in arrays["ids"][row, : arrays["count"][row]].tolist()]
    assert whole == own(f" {WORDS}", add_special_tokens=False)["input_ids"], "halved pieces lose nothing"


def test_the_anchor_reaches_the_latents(tiny_readers):
    encoder = build(tiny_readers)
    source = encoder.prepare([WORDS[:80]])
    before = encoder.encode(source, 4).z_BMD
    source.arrays["anchor"][0, 3] = 9 if source.arrays["anchor"][0, 3] != 9 else 10
    assert (encoder.encode(source, 4).z_BMD - before).abs().max() > 1e-3


def test_the_interlingua_is_one_vector_for_a_group_of_slots(tiny_readers):
    """Of what the transformer gives, nothing but ``group`` numbers per slot group gets through."""
    encoder = build(tiny_readers, group=4)
    pooler = encoder.reader.pooler
    seen = []
    pooler.grow.register_forward_hook(lambda _, args, out: seen.append((args[0].shape, out.shape)))
    latents = encoder.encode(encoder.prepare([WORDS[:80]]), 4)
    M = int(latents.count_B[0])
    assert seen == [((1, -(-M // 4), 16), (1, -(-M // 4), 64))]


def test_what_is_missing_is_named(tiny_readers, tmp_path):
    with pytest.raises(UserError, match="anchor is empty"):
        build(tiny_readers, anchor="")
    with pytest.raises(UserError, match=r"cannot start the encoder from .*nowhere"):
        build(tiny_readers, anchor=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="leave the anchor no token"):
        build(tiny_readers, stretch=0.0)
