"""Mutations of packets for ``fuzz_packets.py``: each a function of a packet's bytes, chance and the other packets."""

from __future__ import annotations

import random
import struct
import zlib

import torch

from latentwire.codecs import Codec, Coded
from latentwire.packets import Packet
from latentwire.packets.packet import CHECKSUM, HEADER, HEADER_BYTES, MAGIC
from latentwire.types import MODES

MAKER = b"encoder1"
FIELDS = ("magic", "version", "codec", "mode", "m", "d", "ratio", "source", "encoder", "length")
EDGES = (
    0,
    1,
    2,
    3,
    4,
    5,
    31,
    32,
    33,
    127,
    128,
    255,
    256,
    8_191,
    8_192,
    8_193,
    32_767,
    32_768,
    65_535,
    2**31,
    2**32 - 1,
)
WIDTHS = {"version": 8, "codec": 8, "mode": 8, "m": 16, "d": 16, "ratio": 16, "source": 32, "length": 32}
SHAPES = ((1, 1), (1, 7), (2, 33), (5, 40), (3, 32), (12, 64), (1, 513))

Made = tuple[str, bytes, bool]
"""Name of the mutation, the bytes, whether length and checksum were made to fit."""


def corpus() -> list[bytes]:
    """Whole packets of every codec, in several shapes and both modes."""
    found = []
    for number, (m, d) in enumerate(SHAPES):
        z_MD = torch.randn(m, d, generator=torch.Generator().manual_seed(number))
        packet = Packet(z_MD, 4 * m, 4, MODES[number % 2], MAKER)
        found += [packet.to_bytes(codec.bits) for codec in Codec.known().values()]
        codes_MK = torch.randint(256, (m, d), generator=torch.Generator().manual_seed(number)).float()
        found.append(Packet(codes_MK, 4 * m, 4, MODES[number % 2], MAKER, coded=True).to_bytes())
    return found


def flip(data: bytearray, rng: random.Random, _: list[bytes]) -> bytearray:
    """One to eight bits anywhere."""
    for place in (rng.randrange(8 * len(data)) for _ in range(rng.randint(1, 8))):
        data[place // 8] ^= 1 << place % 8
    return data


def cut(data: bytearray, rng: random.Random, _: list[bytes]) -> bytearray:
    """Truncated at any byte."""
    return data[: rng.randrange(len(data))]


def grow(data: bytearray, rng: random.Random, _: list[bytes]) -> bytearray:
    """Bytes more, at the end or in between."""
    place = rng.choice((len(data), rng.randrange(len(data))))
    return data[:place] + rng.randbytes(rng.randint(1, 64)) + data[place:]


def splice(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    """The beginning of one packet and the end of another."""
    other = rng.choice(others)
    if rng.random() < 0.3:  # at one and the same place, so that it may even have the right size
        place = rng.randrange(min(len(data), len(other)))
        return data[:place] + other[place:]
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def span(data: bytearray, rng: random.Random, _: list[bytes]) -> bytearray:
    """A stretch made 0, made 255, made up, or copied from elsewhere in the packet."""
    start = rng.randrange(len(data))
    size = min(rng.choice((1, 2, 4, 8, 32)), len(data) - start)
    there = rng.randrange(len(data) - size + 1)
    data[start : start + size] = rng.choice(
        (bytes(size), b"\xff" * size, rng.randbytes(size), data[there : there + size])
    )
    return data


def field(data: bytearray, rng: random.Random, _: list[bytes]) -> bytearray:
    """One or two fields of the header set to what stands at an edge, or to anything."""
    values = dict(zip(FIELDS, HEADER.unpack_from(data), strict=True))
    for name in rng.sample(sorted(WIDTHS), rng.randint(1, 2)):
        bits = WIDTHS[name]
        values[name] = (
            rng.choice((rng.choice(EDGES), rng.getrandbits(bits), values[name] + 1, values[name] - 1)) % 2**bits
        )
    data[: HEADER.size] = HEADER.pack(*values.values())
    return data


def scales(data: bytearray, rng: random.Random, _: list[bytes]) -> bytearray:
    """A value or scale of the payload that is infinite, no number, tiny, or the largest there is."""
    for _again in range(rng.randint(1, 3)):
        place = HEADER_BYTES + 2 * rng.randrange(min((len(data) - HEADER_BYTES) // 2, 40) or 1)
        word = rng.choice((0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFFFF, 0x7BFF, 0x0001, 0x8000, 0x0000))
        if place + 2 <= len(data):
            struct.pack_into("<H", data, place, word)
    return data


def invent(data: bytearray, rng: random.Random, _: list[bytes]) -> bytearray:
    """Random bytes, some of them behind the beginning of a packet."""
    noise = rng.randbytes(rng.randint(0, 400))
    return bytearray(rng.choice((b"", MAGIC, MAGIC + b"\1", bytes(data[:HEADER_BYTES]), bytes(data[:16]))) + noise)


def forge(data: bytearray, rng: random.Random, _: list[bytes]) -> bytearray:
    """Another codec, shape or mode with a payload of the size that it needs: all that a forger can get right."""
    codec = rng.choice([*Codec.known().values(), Coded])()
    m, d = rng.choice(
        ((rng.randint(1, 20), rng.randint(1, 100)), (rng.choice((1, 2, 9)), rng.choice((1, 31, 32, 33, 64))))
    )
    payload = rng.choice((rng.randbytes, bytes, lambda n: b"\x3c" * n, lambda n: b"\xff" * n))(codec.nbytes(m, d))
    head = MAGIC, 1, codec.number, rng.randrange(2), m, d, rng.choice((1, 4, 65_535)), rng.choice(EDGES[1:]), MAKER
    return bytearray(HEADER.pack(*head, len(payload)) + bytes(CHECKSUM.size) + payload)


MUTATIONS = (
    flip, cut, grow, splice, span, field, scales, invent, forge,
)  # fmt: skip


def mend(data: bytearray, length: bool = True) -> bytearray:
    """The checksum, and the length too, as they should be of what there is."""
    if len(data) >= HEADER_BYTES:
        if length:
            struct.pack_into("<I", data, HEADER.size - 4, len(data) - HEADER_BYTES)
        CHECKSUM.pack_into(data, HEADER.size, zlib.crc32(data[HEADER_BYTES:], zlib.crc32(data[: HEADER.size])))
    return data


def made(seed: int, case: int, whole: list[bytes]) -> Made:
    """Case number ``case`` of a run: always the same for the same seed."""
    rng = random.Random(f"{seed}/{case}")
    data, mutate = bytearray(rng.choice(whole)), rng.choice(MUTATIONS)
    for _ in range(rng.choice((1, 1, 1, 2))):
        data = mutate(data, rng, whole) if data else data
    mended = rng.random() < 0.5 or mutate is forge
    if mended:
        # a checksum that fits a length that may not: what looks at the length is to be reached as well
        data = mend(data, length=mutate is not field or rng.random() < 0.5)
    return mutate.__name__, bytes(data), mended
