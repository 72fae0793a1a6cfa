"""Every registered codec: exact sizes, the round trip, its error, and its twin that makes no bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from latentwire.codecs import Codec, by_bits, by_number
from latentwire.errors import UserError

CODECS = {name: kind() for name, kind in Codec.known().items()}
# the error of a value is at most so many times the largest magnitude of its group
STEP = {"float16": 2**-11, "int8": 0.51 / 127, "int6": 0.51 / 31, "int4": 0.35}
every = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 100))


@st.composite
def latents(draw, largest=1000.0):
    """Finite values of ordinary size, zeros and outliers among them."""
    values = st.one_of(st.floats(-largest, largest, width=32), st.just(0.0), st.floats(-1, 1, width=32))
    return torch.from_numpy(draw(arrays.arrays(np.float32, draw(shapes), elements=values)))


def test_names_numbers_and_bits():
    assert {name: (codec.number, codec.bits) for name, codec in CODECS.items()} == {
        "float16": (1, 16),
        "int8": (2, 8),
        "int4": (3, 4),
        "int6": (4, 6),
    }
    for name, codec in CODECS.items():
        assert by_bits(codec.bits) == by_number(codec.number) == codec
        assert codec.name == name


@pytest.mark.parametrize("find", [by_bits, by_number])
def test_an_unknown_codec_is_refused(find):
    with pytest.raises(UserError, match="there is no codec of"):
        find(99)


@every
@given(z=latents())
@settings(deadline=None, max_examples=40)
def test_sizes_are_exact_and_the_round_trip_is_close(codec, z):
    m, d = z.shape
    data = codec.encode(z)
    assert len(data) == codec.nbytes(m, d)
    back = codec.decode(data, m, d)
    assert back.shape == z.shape
    assert back.dtype == torch.float32
    for group, returned in zip(z.split(32, -1), back.split(32, -1), strict=True):
        # the second term: steps between the smallest float16 numbers
        limit = STEP[codec.name] * group.abs().amax(-1, keepdim=True) + 8 * 2**-24
        assert (returned - group).abs().le(limit).all()


@every
@given(z=latents())
@settings(deadline=None, max_examples=40)
def test_quantising_without_bytes_equals_the_round_trip(codec, z):
    back = codec.decode(codec.encode(z), *z.shape)
    assert torch.equal(codec.fake_quantise(z), back)
    # in a batch, beside other latents, from another dtype
    batch = torch.stack([torch.randn_like(z), z, torch.zeros_like(z)])
    assert torch.equal(codec.fake_quantise(batch)[1], back)
    rough = z.bfloat16()
    assert torch.equal(codec.fake_quantise(rough), codec.decode(codec.encode(rough), *z.shape))


@every
@given(z=latents(largest=10.0))
@settings(deadline=None, max_examples=40)
def test_packing_what_was_unpacked_changes_nothing(codec, z):
    z = torch.where(z.abs() < 0.01, 0, z)  # below, the steps of float16 scales are coarse
    data = codec.encode(z)
    assert codec.encode(codec.decode(data, *z.shape)) == data


@pytest.mark.parametrize(("name", "most"), [("float16", 0.0003), ("int8", 0.0056), ("int6", 0.0235), ("int4", 0.0835)])
def test_error_on_normally_distributed_values(name, most):
    z = torch.randn(400, 256, generator=torch.Generator().manual_seed(0))
    assert (CODECS[name].fake_quantise(z) - z).norm() / z.norm() < most


def test_int4_is_better_than_without_a_search():
    # the reference: gguf's Q4_0, one signed scale per group from its largest magnitude
    z = torch.randn(400, 256, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.1, 3, 256)
    x = z.unflatten(-1, (-1, 32))
    scale = (x.gather(-1, x.abs().argmax(-1, keepdim=True)) / -8).half().float()
    plain = ((x / scale).round().clamp(-8, 7) * scale).flatten(-2)
    assert (CODECS["int4"].fake_quantise(z) - z).norm() < 0.965 * (plain - z).norm()


@pytest.mark.parametrize(
    ("name", "size"), [("float16", 32 * 256 * 2), ("int8", 32 * 272), ("int6", 32 * 208), ("int4", 32 * 144)]
)
def test_scales_are_counted(name, size):
    assert CODECS[name].nbytes(32, 256) == size


@every
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_number_is_refused(codec, bad):
    z = torch.zeros(2, 40)
    z[1, 39] = bad
    with pytest.raises(UserError, match="1 of 80 latent values are infinite or not a number"):
        codec.encode(z)


@every
def test_what_is_not_a_number_is_not_hidden_without_bytes(codec):
    z = torch.randn(1, 2, 64)
    z[0, 1, 40] = torch.nan
    assert codec.fake_quantise(z)[0, 1, 40].isnan()


@every
def test_values_of_any_size_stay_finite(codec):
    for size in (0.0, 1e-45, 1e-30, 1e-6, 1e6, 1e30, 3.4e38):
        z = size * torch.linspace(-1, 1, 70).reshape(2, 35)
        assert codec.decode(codec.encode(z), 2, 35).isfinite().all()
        assert torch.equal(codec.fake_quantise(z), codec.decode(codec.encode(z), 2, 35))


@every
def test_bytes_of_another_size_are_refused(codec):
    data = codec.encode(torch.ones(2, 33))
    for other in (data[:-1], data + b"\0", b""):
        with pytest.raises(UserError, match=f"take {len(data)} bytes"):
            codec.decode(other, 2, 33)
    with pytest.raises(ValueError, match="of one text"):
        codec.encode(torch.ones(1, 2, 33))


@every
def test_neighbouring_groups_do_not_matter(codec):
    z = torch.randn(3, 64)
    loud = torch.cat([z[:, :32], 1000 * z[:, 32:]], -1)
    assert torch.equal(codec.fake_quantise(z)[:, :32], codec.fake_quantise(loud)[:, :32])


def test_int6_lies_in_its_bytes_as_it_is_told():
    """The layout of the docstring, read bit by bit: scales, then six bits a code, the first in the lowest."""
    z = torch.tensor([[31.0, -31.0, 0.0, 5.0, -7.0], [2.0, 31.0, -1.0, 0.0, 30.0]])
    data = CODECS["int6"].encode(z)
    assert len(data) == 2 * 2 + 8  # ten codes of six bits are seven and a half bytes
    assert np.frombuffer(data, "<f2", 2).tolist() == [1.0, 1.0]
    number = int.from_bytes(data[4:], "little")
    codes = [(number >> 6 * place & 63) - 31 for place in range(10)]
    assert codes == z.flatten().int().tolist() and number >> 60 == 0


@given(data=st.binary(min_size=14, max_size=14))
@settings(deadline=None, max_examples=40)
def test_any_codes_are_read_as_int6(data):
    """Seven codes and a scale from anywhere: nothing but numbers within 32 steps of the scale."""
    scale = np.frombuffer(b"\0<", "<f2")  # 1.0
    payload = scale.tobytes() + data[:6]
    assert CODECS["int6"].decode(payload, 1, 7).abs().max() <= 32
