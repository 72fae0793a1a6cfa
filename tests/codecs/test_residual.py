"""Learned codes: books that tell latents better the more of them are named, that learn, and that nobody else's are."""

from __future__ import annotations

import pytest
import torch

from latentwire.codecs import Coded, by_number
from latentwire.codecs.base import by_bits
from latentwire.codecs.residual import ResidualCodes, ResidualConfig
from latentwire.errors import UserError


def drawn(seed: int, texts: int = 8, latents: int = 32, width: int = 12) -> torch.Tensor:
    """Latents around a few centres: something that books can learn."""
    luck = torch.Generator().manual_seed(seed)
    centres = torch.randn(24, width, generator=torch.Generator().manual_seed(99)) * 3
    place = torch.randint(24, (texts, latents), generator=luck)
    return centres[place] + 0.3 * torch.randn(texts, latents, width, generator=luck)


@pytest.fixture(scope="module")
def learned() -> ResidualCodes:
    torch.manual_seed(0)
    codes = ResidualCodes(ResidualConfig(stages=4, size=32, decay=0.9), 12).train()
    for step in range(150):
        z_BMD = drawn(step)
        codes(z_BMD, torch.ones(z_BMD.shape[:2], dtype=torch.bool), 4)
    return codes.eval()


def test_more_codes_tell_more(learned):
    z_BMD = drawn(1000)
    left = []
    for stages in (1, 2, 4):
        told_BMD = learned.vectors(learned.codes(z_BMD, stages))
        left.append(float((told_BMD - z_BMD).square().mean() / z_BMD.square().mean()))
    assert left[0] < 0.05 and left[1] < 0.7 * left[0] and left[2] < left[1]


def test_the_first_codes_are_a_coarser_packet(learned):
    z_BMD = drawn(1001)
    assert torch.equal(learned.codes(z_BMD, 4)[..., :2], learned.codes(z_BMD, 2))


def test_every_vector_is_used(learned):
    codes = learned.codes(torch.cat([drawn(step) for step in range(2000, 2040)]), 1)
    assert len(codes.unique()) >= 24


def test_the_encoder_gets_the_gradient_as_if_nothing_had_happened(learned):
    z_BMD = drawn(1002).requires_grad_()
    mask_BM = torch.ones(z_BMD.shape[:2], dtype=torch.bool)
    mask_BM[:, 20:] = False
    told_BMD, far = learned(z_BMD, mask_BM, 4)
    torch.testing.assert_close(told_BMD[:, :20], learned.vectors(learned.codes(z_BMD[:, :20], 4)))
    assert not told_BMD[:, 20:].any() and 0 < float(far.detach()) < 0.05
    told_BMD.sum().backward()
    assert z_BMD.grad is not None
    assert torch.equal(z_BMD.grad[:, :20], torch.ones_like(z_BMD[:, :20])) and not z_BMD.grad[:, 20:].any()


def test_padding_teaches_nothing():
    books = []
    for filler in (0.0, 1e6):
        torch.manual_seed(1)
        codes = ResidualCodes(ResidualConfig(stages=2, size=8), 12).train()
        z_BMD, mask_BM = drawn(5).clone(), torch.ones(8, 32, dtype=torch.bool)
        z_BMD[:, 16:], mask_BM[:, 16:] = filler, False
        codes(z_BMD, mask_BM, 2)
        books.append(codes.books.clone())
    torch.testing.assert_close(*books)


def test_as_a_codec_it_makes_the_round_trip_of_its_bytes(learned):
    codec, z_MD = learned.codec(8 * 3 / 12), drawn(7)[0]
    data = codec.encode(z_MD)
    assert len(data) == codec.nbytes(*z_MD.shape) == 3 * 32
    torch.testing.assert_close(codec.decode(data, *z_MD.shape), codec.fake_quantise(z_MD[None])[0])
    alone = by_number(Coded.number)
    assert alone.decode(data, 32, 3).to(torch.uint8).tolist() == learned.codes(z_MD, 3).tolist()


@pytest.mark.parametrize("bits", [0.5, 4.0])
def test_what_no_codes_make_is_refused(learned, bits):
    with pytest.raises(UserError, match="codes"):
        learned.codec(bits)
    with pytest.raises(UserError, match="there is no codec of bits"):
        by_bits(0.25)


def test_a_code_beyond_its_book_is_refused(learned):
    with pytest.raises(UserError, match="names vector 40 of a book of 32"):
        learned.vectors(torch.full((2, 3), 40, dtype=torch.uint8))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match="1 to 255 stages"):
        ResidualConfig(stages=0)
    with pytest.raises(UserError, match="below 1"):
        ResidualConfig(decay=1.0)


def narrowed() -> ResidualCodes:
    torch.manual_seed(0)
    return ResidualCodes(ResidualConfig(stages=3, size=32, width=4, decay=0.9), 12)


def test_narrow_books_learn_and_their_maps_get_gradients():
    codes = narrowed().train()
    for step in range(150):
        z_BMD = drawn(step)
        told_BMD, far = codes(z_BMD, torch.ones(z_BMD.shape[:2], dtype=torch.bool), 3)
    assert codes.books.shape == (96, 4) and told_BMD.shape == z_BMD.shape and float(far.detach()) < 0.1
    told_BMD.square().mean().backward()
    assert codes.down is not None and codes.up is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (codes.down.weight, codes.up.weight))


def test_narrow_codes_are_read_as_training_reads_them():
    codes = narrowed().train()
    z_BMD = drawn(0)
    codes(z_BMD, torch.ones(z_BMD.shape[:2], dtype=torch.bool), 3)
    codes.eval()
    told_BMD, _ = codes(z_BMD, torch.ones(z_BMD.shape[:2], dtype=torch.bool), 2)
    torch.testing.assert_close(told_BMD, codes.vectors(codes.codes(z_BMD, 2)))
    # as an encoder's latents: mean 0 and spread 1
    torch.testing.assert_close(told_BMD.square().mean(-1), torch.ones(z_BMD.shape[:2]), atol=0.01, rtol=0)
    assert told_BMD.mean(-1).abs().max() < 1e-5


def test_another_way_back_is_another_maker():
    codes = narrowed()
    before = codes.fingerprint(b"encoder1")
    assert codes.fingerprint(b"encoder1") == before
    with torch.no_grad():
        codes.up.weight[0, 0] += 1
    assert codes.fingerprint(b"encoder1") != before


def test_a_width_is_a_number_of_values():
    with pytest.raises(UserError, match=r"codes\.width"):
        ResidualConfig(width=-1)
