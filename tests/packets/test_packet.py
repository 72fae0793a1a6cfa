"""The container: what goes in comes out, sizes are exact, and nothing that was damaged is read."""

from __future__ import annotations

import doctest
import struct
import tracemalloc
import zlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire.codecs import by_bits
from latentwire.errors import UserError
from latentwire.packets import Packet, packet
from latentwire.packets.packet import CHECKSUM, HEADER, HEADER_BYTES, MAGIC

MAKER, OTHER = b"\x01\x02\x03\x04\x05\x06\x07\x08", b"otherone"
BITS = (16, 8, 6, 4)


def make(m=5, d=40, source=17, ratio=4, mode="context", seed=0) -> Packet:
    z_MD = torch.randn(m, d, generator=torch.Generator().manual_seed(seed))
    return Packet(z_MD, source, ratio, mode, MAKER)


def forge(**change) -> bytes:
    """A packet of one latent of 8 values with a header that lies and a checksum that fits."""
    true = {"magic": MAGIC, "version": 1, "codec": 1, "mode": 0, "m": 1, "d": 8, "ratio": 4, "source": 3}
    payload = change.pop("payload", bytes(16))
    fields = {**true, "encoder": MAKER, "length": len(payload), **change}
    head = HEADER.pack(*fields.values())
    return head + CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(head))) + payload


packets = st.builds(
    make,
    m=st.integers(1, 20),
    d=st.integers(1, 70),
    source=st.one_of(st.integers(1, 300), st.just(2**32 - 1)),
    ratio=st.one_of(st.integers(1, 16), st.just(65_535)),
    mode=st.sampled_from(["context", "prompt"]),
    seed=st.integers(0, 99),
)


@given(packets, st.sampled_from(BITS))
@settings(deadline=None)
def test_round_trip_and_exact_size(sent, bits):
    data = sent.to_bytes(bits)
    m, d = sent.z_MD.shape
    assert len(data) == sent.size(bits) == HEADER_BYTES + by_bits(bits).nbytes(m, d)
    got = Packet.from_bytes(data, encoder=MAKER)
    assert torch.equal(got.z_MD, by_bits(bits).fake_quantise(sent.z_MD))
    for name in ("source_tokens", "ratio", "mode", "encoder"):
        assert getattr(got, name) == getattr(sent, name)
    assert got.bits == bits
    # reading and writing again changes nothing
    assert got.to_bytes(bits) == data


def test_header_is_small():
    assert HEADER_BYTES == 32
    assert len(make(32, 256).to_bytes(4)) == 32 + 32 * 256 // 2 + 32 * 8 * 2


def test_payload_bytes_are_counted_per_packet_and_in_bytes_defect_13():
    """The first implementation counted payload bytes over the whole set, and prompts in characters."""
    sizes = [make(m=m).size(8) for m in (1, 2, 7)]
    assert sizes == [len(make(m=m).to_bytes(8)) for m in (1, 2, 7)]


@pytest.mark.parametrize("bits", BITS)
def test_every_truncation_is_refused(bits):
    data = make().to_bytes(bits)
    for size in range(len(data)):
        with pytest.raises(UserError, match="cut short"):
            Packet.from_bytes(data[:size])


@pytest.mark.parametrize("bits", BITS)
def test_every_flipped_bit_is_refused(bits):
    data = make(m=3, d=33).to_bytes(bits)
    for place in range(8 * len(data)):
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises(UserError):
            Packet.from_bytes(bytes(broken))


@given(packets, st.sampled_from(BITS), st.data())
@settings(deadline=None)
def test_any_damage_is_refused(sent, bits, data):
    whole = sent.to_bytes(bits)
    start = data.draw(st.integers(0, len(whole) - 1))
    span = data.draw(st.binary(min_size=1, max_size=4))
    broken = whole[:start] + span + whole[start + len(span) :]
    if broken != whole:
        with pytest.raises(UserError):
            Packet.from_bytes(broken)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    for noise in (data, MAGIC + data, MAGIC + b"\1" + data):
        with pytest.raises(UserError):
            Packet.from_bytes(noise)


def test_trailing_bytes_are_refused():
    with pytest.raises(UserError, match="followed by other bytes"):
        Packet.from_bytes(make().to_bytes() + b"\0")


def test_packet_of_another_encoder_is_refused():
    data = make().to_bytes()
    assert Packet.from_bytes(data).encoder == MAKER
    with pytest.raises(UserError, match=f"made by encoder {MAKER.hex()}.*encode the text again"):
        Packet.from_bytes(data, encoder=OTHER)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"magic": b"LW2"}, "no LatentWire packet"),
        ({"version": 2}, "has version 2, this LatentWire reads version 1"),
        ({"codec": 99}, "no codec of number 99"),
        ({"mode": 2}, "header is damaged"),
        ({"m": 0}, "header is damaged"),
        ({"d": 0}, "header is damaged"),
        ({"ratio": 0}, "header is damaged"),
        ({"source": 0}, "header is damaged"),
        ({"d": 8_193, "length": 16_386}, "header is damaged"),
        ({"m": 2}, "16 bytes of payload cannot hold 2 x 8 values"),
        ({"length": 15}, "15 bytes of payload cannot hold 1 x 8 values"),
        ({"payload": struct.pack("<8e", *[float("inf")] * 8)}, "infinite or not a number"),
        ({"payload": struct.pack("<8e", *[float("nan")] * 8)}, "infinite or not a number"),
    ],
)
def test_a_header_that_lies_is_refused(change, said):
    assert Packet.from_bytes(forge()).z_MD.shape == (1, 8)
    with pytest.raises(UserError) as error:
        Packet.from_bytes(forge(**change))
    assert said in str(error.value)


def test_nothing_is_allocated_for_a_header_that_promises_much(tmp_path):
    # 65,535 x 8,192 values would take 2 GB
    data = forge(m=65_535, d=8_192, length=65_535 * 8_192 * 2)
    path = tmp_path / "much.lw"
    path.write_bytes(data)
    tracemalloc.start()
    for read in (lambda: Packet.from_bytes(data), lambda: Packet.load(path)):
        with pytest.raises(UserError, match="cut short"):
            read()
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"z_MD": torch.zeros(1, 2, 3)}, "of one text"),
        ({"z_MD": torch.zeros(0, 8)}, "not 0 x 8"),
        ({"z_MD": torch.zeros(1, 8_193)}, "not 1 x 8193"),
        ({"z_MD": torch.zeros(65_536, 1)}, "not 65536 x 1"),
        ({"mode": "chat"}, "context, prompt, not 'chat'"),
        ({"ratio": 0}, "ratio of 0"),
        ({"ratio": 65_536}, "ratio of 65536"),
        ({"source_tokens": 0}, "0 source tokens"),
        ({"source_tokens": 2**32}, "source tokens"),
        ({"encoder": b"short"}, "8 bytes, not 5"),
    ],
)
def test_what_no_packet_can_hold_is_refused(change, said):
    fields: dict[str, Any] = {
        "z_MD": torch.zeros(1, 8),
        "source_tokens": 3,
        "ratio": 4,
        "mode": "context",
        "encoder": MAKER,
    }
    with pytest.raises(UserError) as error:
        Packet(**{**fields, **change})
    assert said in str(error.value)


def test_values_that_are_no_numbers_are_not_packed():
    with pytest.raises(UserError, match="not a number"):
        Packet(torch.full((1, 8), torch.nan), 3, 4, "context", MAKER).to_bytes()
    with pytest.raises(UserError, match="no codec of bits 5"):
        make().to_bytes(5)


@pytest.mark.parametrize("bits", BITS)
def test_files(tmp_path, bits):
    path = tmp_path / "new" / "my.lw"
    sent = make()
    assert sent.save(path, bits) == path.stat().st_size == sent.size(bits)
    assert Packet.load(path, MAKER).to_bytes(bits) == path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["my.lw"]
    with pytest.raises(UserError, match=rf"{path.name}: packet was made by encoder"):
        Packet.load(path, OTHER)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(UserError, match="followed by other bytes"):
        Packet.load(path)
    with pytest.raises(UserError, match="cannot read packet"):
        Packet.load(tmp_path / "none.lw")


def test_describe_says_what_is_in_it():
    sent = make(m=4, d=64, source=15)
    got = Packet.from_bytes(sent.to_bytes(4)).describe()
    norm = got.pop("norm")
    assert got == {
        "version": 1,
        "codec": "int4",
        "bits": 4,
        "mode": "context",
        "latents": 4,
        "width": 64,
        "source_tokens": 15,
        "ratio": 4,
        "bytes": len(sent.to_bytes(4)),
        "header_bytes": 32,
        "encoder": MAKER.hex(),
    }
    assert norm["min"] <= norm["mean"] <= norm["max"]
    assert norm["mean"] == pytest.approx(float(sent.z_MD.norm(dim=-1).mean()), rel=0.1)
    assert sent.describe()["codec"] == "float16"


def test_examples_in_the_docstrings():
    assert doctest.testmod(packet).failed == 0
