"""The format of `docs/packet-format.md`: its bytes are pinned, and a reader written after the page reads them."""

from __future__ import annotations

import hashlib
import re
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire.codecs import by_bits
from latentwire.codecs.residual import ResidualCodes, ResidualConfig
from latentwire.errors import UserError
from latentwire.packets import Packet

PAGE = Path(__file__).resolve().parents[2] / "docs" / "packet-format.md"
BITS = {"float16": 16, "int8": 8, "int6": 6, "int4": 4}
MAKER = bytes.fromhex("0123456789abcdef")
GOLDEN = {
    "float16": (
        "4c5731010100010021000400820000000123456789abcdef420000000f61b2ae"
        "00c480c300c380c200c280c100c180c000c000bf00be00bd00bc00ba00b800b4"
        "000000340038003a003c003d003e003f00408040004180410042804200438043"
        "c0cf"
    ),
    "int8": (
        "4c5731010200010021000400820000000123456789abcdef25000000032def31"
        "0828d03381899199a1a9b1b9c0c8d0d8e0e8f0f8000810182028303840474f57"
        "5f676f7781"
    ),
    "int6": (
        "4c5731010401010021000400820000000123456789abcdef1d000000ace508c8"
        "2130003c80401888c2384f345557b6755f389667bab62f2cd336aef300"
    ),
    "int4": (
        "4c5731010300010021000400820000000123456789abcdef1500000082a7669ab137c043001122334455667798a9bacbdcedfeff00"
    ),
    "codes": "4c5731010500030002000400820000005c98d3d4b5b04f080600000017d005dc030000020203",
}


def sent(name: str) -> Packet:
    """The packet of the page: a ramp, and one value of another group."""
    z_MD = (torch.arange(33)[None] - 16) / 4
    z_MD[0, 32] = -31
    return Packet(z_MD, 130, 4, "prompt" if name == "int6" else "context", MAKER)


BOOKS = [[[-4, -4], [-4, 4], [4, -4], [4, 4]], [[-1, 0], [1, 0], [0, -1], [0, 1]]]


def books() -> ResidualCodes:
    """The books of the page, as a wire holds them."""
    codes = ResidualCodes(ResidualConfig(stages=2, size=4), 2).eval()
    codes.books.copy_(torch.tensor(BOOKS, dtype=torch.float32).flatten(0, 1))
    codes.use.fill_(1.0)
    return codes


def coded(z_MD: torch.Tensor, codes: ResidualCodes) -> Packet:
    """A packet of two codes a latent, as :meth:`latentwire.wire.Wire.encode` makes it."""
    return Packet(codes.codes(z_MD, 2).float(), 130, 4, "context", codes.fingerprint(MAKER), coded=True)


def read(data: bytes) -> list[list[float]]:
    """Latents by the page alone: no numpy, no codec of ours."""
    magic, version, codec, _, m, d, _, _, _, length, crc = struct.unpack("<3sBBBHHHI8sII", data[:32])
    payload = data[32:]
    assert (magic, version, length) == (b"LW1", 1, len(payload))
    assert crc == zlib.crc32(data[:28] + payload)
    if codec == 1:
        values = list(struct.unpack(f"<{m * d}e", payload))
        return [values[i * d : (i + 1) * d] for i in range(m)]
    if codec == 5:
        named = [[BOOKS[k][code] for k, code in enumerate(payload[i * d : (i + 1) * d])] for i in range(m)]
        return [[float(sum(values)) for values in zip(*vectors, strict=True)] for vectors in named]
    groups = -(-d // 32)
    scales = struct.unpack_from(f"<{m * groups}e", payload)
    body = payload[2 * m * groups :]
    if codec == 2:
        codes = list(struct.unpack(f"<{m * d}b", body))
    else:
        wide, zero = {3: (4, 8), 4: (6, 31)}[codec]
        number = int.from_bytes(body, "little")
        codes = [(number >> wide * i & (1 << wide) - 1) - zero for i in range(m * d)]
        assert number >> wide * m * d == 0, "what is left over is written as 0"
    return [[codes[i * d + j] * scales[i * groups + j // 32] for j in range(d)] for i in range(m)]


@pytest.mark.parametrize("name", BITS)
def test_the_bytes_of_a_packet_are_pinned(name):
    packet = sent(name)
    assert packet.to_bytes(BITS[name]).hex() == GOLDEN[name]
    got = Packet.from_bytes(bytes.fromhex(GOLDEN[name]), encoder=MAKER)
    assert (got.source_tokens, got.ratio, got.mode, got.encoder, got.bits) == (130, 4, packet.mode, MAKER, BITS[name])
    assert torch.equal(got.z_MD, by_bits(BITS[name]).fake_quantise(packet.z_MD))
    assert torch.equal(got.z_MD, torch.tensor(read(bytes.fromhex(GOLDEN[name]))))


def test_the_bytes_of_a_packet_of_codes_are_pinned():
    z_MD, codes = torch.tensor([[3.0, 4.0], [-4.0, -5.0], [4.0, -3.0]]), books()
    packet, data = coded(z_MD, codes), bytes.fromhex(GOLDEN["codes"])
    assert packet.to_bytes() == data and data[32:] == bytes([3, 0, 0, 2, 2, 3])
    flat = [value for book in BOOKS for vector in book for value in vector]
    maker = hashlib.sha256(MAKER + struct.pack("<16f", *flat)).digest()[:8]
    got = Packet.from_bytes(data, encoder=maker)
    assert (got.source_tokens, got.ratio, got.mode, got.encoder, got.bits) == (130, 4, "context", maker, 8)
    assert got.coded and got.z_MD.shape == (3, 2)
    assert codes.vectors(got.z_MD.to(torch.uint8)).tolist() == read(data) == z_MD.tolist()
    # another encoder, or one number of a book changed: another maker
    assert codes.fingerprint(b"encoder1") != maker
    codes.books[7, 1] += 1
    assert codes.fingerprint(MAKER) != maker


def test_the_page_shows_the_pinned_bytes():
    shown = re.findall(r"```text\n(\w+)\n([0-9a-f\n]+)```", PAGE.read_text(encoding="utf-8"))
    assert {name: lines.replace("\n", "") for name, lines in shown} == GOLDEN


@given(
    m=st.integers(1, 6),
    d=st.integers(1, 70),
    seed=st.integers(0, 999),
    size=st.sampled_from([0.0, 1e-4, 1.0, 1e3]),
    bits=st.sampled_from(list(BITS.values())),
)
@settings(deadline=None, max_examples=60)
def test_a_reader_written_after_the_page_reads_any_packet(m, d, seed, size, bits):
    z_MD = size * torch.randn(m, d, generator=torch.Generator().manual_seed(seed))
    data = Packet(z_MD, 9, 4, "context", MAKER).to_bytes(bits)
    assert torch.equal(Packet.from_bytes(data).z_MD, torch.tensor(read(data)))


@pytest.mark.parametrize("bits", BITS.values())
def test_a_scale_that_is_no_number_is_refused_without_a_warning(bits):
    whole = bytearray(sent("int8").to_bytes(bits))
    for scale in (0x7C00, 0xFC00, 0x7E00, 0x7C01):  # both infinities, a quiet NaN, a signalling one
        struct.pack_into("<H", whole, 32, scale)
        struct.pack_into("<I", whole, 28, zlib.crc32(whole[:28] + whole[32:]))
        with warnings.catch_warnings(), pytest.raises(UserError, match="infinite or not a number"):
            warnings.simplefilter("error")
            Packet.from_bytes(bytes(whole))


@pytest.mark.parametrize("bits", [*BITS.values(), None])  # None: codes
@pytest.mark.parametrize("m", [1, 2000])
def test_reading_takes_no_more_memory_than_the_page_says(bits, m):
    values = torch.randn(m, 256) if bits else torch.randint(256, (m, 16)).float()
    data = Packet(values, 9, 4, "context", MAKER, coded=not bits).to_bytes(bits or 8)
    Packet.from_bytes(data)
    tracemalloc.start()
    Packet.from_bytes(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 32 * len(data) + (64 << 10)
