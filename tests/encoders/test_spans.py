"""A fixed number of latents: equal spans of any text, and nothing left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import WORDS
from contracts.matrix import config
from latentwire.encoders import EncoderConfig
from latentwire.encoders.spans import piece_numbers, quota, slots_of, stretched
from latentwire.errors import UserError


def test_pieces_share_their_texts_latents():
    pieces = torch.from_numpy(piece_numbers(np.array([0, 1, 1, 1, 2, 2])))
    assert pieces.tolist() == [[0, 1], [0, 3], [1, 3], [2, 3], [0, 2], [1, 2]]
    first, held, total = quota(pieces, 8)
    assert held.tolist() == [8, 2, 3, 3, 4, 4] and first.tolist() == [0, 0, 2, 5, 0, 4]
    assert total.tolist() == [8] * 6
    assert quota(pieces, 2)[1].tolist() == [2, 1, 1, 1, 1, 1], "more pieces than latents: one for each"


def test_stretching_repeats_or_averages_and_leaves_nothing_out():
    x = torch.arange(6.0).reshape(1, 6, 1).repeat(3, 1, 1)
    count, places = torch.tensor([6, 3, 6]), torch.tensor([6, 6, 3])
    out = stretched(x, count, places, 7)[..., 0]
    assert out[0].tolist() == [0, 1, 2, 3, 4, 5, 0]
    assert out[1].tolist() == [0, 0, 1, 1, 2, 2, 0]
    assert out[2].tolist() == [0.5, 2.5, 4.5, 0, 0, 0, 0]
    x = torch.randn(1, 11, 2, requires_grad=True)
    for places in (4, 9, 11, 30):
        (grad,) = torch.autograd.grad(stretched(x, torch.tensor([11]), torch.tensor([places]), 30).sum(), x)
        assert (grad > 0).all(), f"a token reaches none of {places} places"


@pytest.mark.parametrize("count", [5, 64])
def test_slots_stand_in_the_middles_of_equal_spans(count):
    batch = {"count": torch.tensor([count]), "piece": torch.tensor([[0, 1]], dtype=torch.int32)}
    middle = slots_of(batch, 64, 4, window=64).middle_BM[0]
    torch.testing.assert_close(middle, (torch.arange(16) + 0.5) * count / 16)
    assert slots_of(batch, 64, 4).middle_BM[0].tolist() == ((torch.arange(16) + 0.5) * 4).tolist()


@pytest.mark.parametrize("pool", ["concat", "mean"])
@pytest.mark.parametrize("ratio", [4, 8])
def test_a_full_window_has_the_latents_that_it_has_anyway(tiny_readers, pool, ratio):
    torch.manual_seed(0)
    plain = config(EncoderConfig, "lm", tiny_readers, pool=pool).build().eval()
    torch.manual_seed(0)
    fixed = config(EncoderConfig, "lm", tiny_readers, pool=pool, fixed=True).build().eval()
    text = plain.tokenizer.decode(plain.tokenizer(WORDS, add_special_tokens=False)["input_ids"][:63])
    sources = [encoder.prepare([text]) for encoder in (plain, fixed)]
    assert sources[0].arrays["count"].tolist() == [64]
    with torch.no_grad():
        expected, got = (e.encode(source, ratio) for e, source in zip((plain, fixed), sources, strict=True))
    torch.testing.assert_close(got.z_BMD, expected.z_BMD, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["lm, a fixed number", "byte, a fixed number", "sentence-tokens, a fixed number"])
def test_any_text_has_the_same_number_of_latents(tiny_readers, name):
    encoder = config(EncoderConfig, name, tiny_readers).build().eval()
    texts = ["A", WORDS[:100], WORDS]
    source = encoder.prepare(texts)
    assert len(source.owner_P) > 3, "one of them takes several windows"
    for ratio in (4, 8):
        latents = encoder.encode(source, ratio)
        assert latents.count_B.tolist() == [64 // ratio] * 3
        assert latents.source_B[2] > 64
        # neighbours differ: no two latents stand for the same thing, short as the text may be
        assert (latents.z_BMD[2].diff(dim=0).abs().sum(-1) > 1e-4).all()


def test_what_cannot_be_fixed_is_refused(tiny_readers):
    with pytest.raises(UserError, match="takes no lexicons"):
        config(EncoderConfig, "lm", tiny_readers, fixed=True, lexicons=["gemma"]).build()
    with pytest.raises(UserError, match="66 is no multiple of 4"):
        config(EncoderConfig, "lm", tiny_readers, fixed=True, window=66).build()
