"""The format ``lw1``: a header of 32 bytes, then the codec's payload. ``docs/packet-format.md`` tells every byte of it.

=======  =====  ==================================================================
offset   bytes  what (integers little-endian)
=======  =====  ==================================================================
0        3      ``LW1``
3        1      version of the header (1)
4        1      codec number (1 float16, 2 int8, 3 int4, 4 int6, 5 codes)
5        1      mode: 0 context, 1 prompt
6        2      M, latents
8        2      D, values of a latent (of codes: how many)
10       2      ratio, source tokens per latent
12       4      source tokens the latents stand for
16       8      fingerprint of the encoder
24       4      length of the payload
28       4      CRC-32 of bytes 0-27 and the payload
=======  =====  ==================================================================

How a payload lies is said by its codec, in the room ``codecs``: scales first, then codes.

A text that was encoded in pieces has the latents of all of them, one piece behind the other. Every count in the header
is checked against the others and against the length of the data before anything is allocated, so what a packet from
anywhere costs is bounded by the bytes that it really has; the checksum then covers all of it.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from latentwire.codecs import Codec, Coded, by_bits, by_number
from latentwire.errors import UserError
from latentwire.types import MODES

MAGIC, VERSION = b"LW1", 1
FORMAT = "lw1"
"""What a message that carries a packet calls it."""
HEADER = struct.Struct("<3sBBBHHHI8sI")
CHECKSUM = struct.Struct("<I")
HEADER_BYTES = HEADER.size + CHECKSUM.size
MAX_LATENTS, MAX_WIDTH, MAX_RATIO, MAX_SOURCE = 65_535, 8_192, 65_535, 2**32 - 1
FINGERPRINT_BYTES = 8


@dataclass(frozen=True, eq=False)
class Packet:
    """Latents of one text.

    z_MD: float32 on the CPU. source_tokens: tokens of the encoder that they stand for. ratio: source tokens per latent.
    mode: of :data:`latentwire.types.MODES`. encoder: first eight bytes of its fingerprint.
    bits: per value that they were packed with; None where they have not been packed yet. coded: values are numbers of
    vectors in the wire's books (:mod:`latentwire.codecs.residual`), and ``encoder`` names these too.

    >>> import torch
    >>> packet = Packet(torch.ones(32, 256), source_tokens=128, ratio=4, mode="context", encoder=b"8 bytes!")
    >>> len(packet.to_bytes(bits=4)), packet.size(4)
    (4640, 4640)
    """

    z_MD: Tensor
    source_tokens: int
    ratio: int
    mode: str
    encoder: bytes
    bits: int | None = None
    coded: bool = False

    def __post_init__(self) -> None:
        if self.z_MD.ndim != 2:
            raise UserError(f"a packet holds latents [M, D] of one text, got shape {tuple(self.z_MD.shape)}")
        m, d = self.z_MD.shape
        if not (0 < m <= MAX_LATENTS and 0 < d <= MAX_WIDTH):
            raise UserError(f"a packet holds 1 to {MAX_LATENTS} latents of 1 to {MAX_WIDTH} values, not {m} x {d}")
        if self.mode not in MODES:
            raise UserError(f"a packet's mode is one of {', '.join(MODES)}, not {self.mode!r}")
        if not (0 < self.ratio <= MAX_RATIO and 0 < self.source_tokens <= MAX_SOURCE):
            raise UserError(f"a packet cannot hold a ratio of {self.ratio} and {self.source_tokens} source tokens")
        if len(self.encoder) != FINGERPRINT_BYTES:
            raise UserError(f"an encoder is named by {FINGERPRINT_BYTES} bytes, not {len(self.encoder)}")

    def codec(self, bits: int = 16) -> Codec:
        """How it is packed at so many bits per value; codes are bytes whatever is asked for."""
        return Coded() if self.coded else by_bits(bits)

    def to_bytes(self, bits: int = 16) -> bytes:
        """Header and payload; ``bits`` per value is 16, 8, 6 or 4 (scales come on top, see :meth:`size`).

        UserError: no such codec, or values that are not finite numbers.
        """
        codec = self.codec(bits)
        payload = codec.encode(self.z_MD)
        head = HEADER.pack(
            MAGIC,
            VERSION,
            codec.number,
            MODES.index(self.mode),
            *self.z_MD.shape,
            self.ratio,
            self.source_tokens,
            self.encoder,
            len(payload),
        )
        return head + CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(head))) + payload

    @classmethod
    def from_bytes(cls, data: bytes, encoder: bytes | None = None) -> Packet:
        """Read a packet; everything is checked before anything is allocated.

        encoder: fingerprint of the encoder whose packets are wanted; a packet of another one is refused.
        UserError: no packet, another version, cut short, followed by other bytes, damaged, or of another encoder.
        """
        view = memoryview(data)
        number, mode, m, d, ratio, source, made_by, length = _header(view[:HEADER_BYTES])
        if len(view) != HEADER_BYTES + length:
            kind = "cut short" if len(view) < HEADER_BYTES + length else "followed by other bytes"
            raise UserError(f"packet is {kind}: {len(view)} bytes, expected {HEADER_BYTES + length}")
        payload = view[HEADER_BYTES:]
        (checksum,) = CHECKSUM.unpack_from(view, HEADER.size)
        if checksum != zlib.crc32(payload, zlib.crc32(view[: HEADER.size])):
            raise UserError("packet is damaged: its checksum does not fit; get it again from where it came")
        if encoder is not None and made_by != encoder:
            raise UserError(
                f"packet was made by encoder {made_by.hex()}, this wire's encoder is {encoder.hex()}; "
                "encode the text again with this wire"
            )
        codec = by_number(number)
        z_MD = codec.decode(payload, m, d)
        if not z_MD.isfinite().all():
            raise UserError("packet holds values that are infinite or not a number; whoever wrote it was broken")
        return cls(z_MD, source, ratio, MODES[mode], made_by, codec.bits, isinstance(codec, Coded))

    def size(self, bits: int = 16) -> int:
        """Exact bytes of the packet at so many bits per value, header and scales included."""
        return HEADER_BYTES + self.codec(bits).nbytes(*self.z_MD.shape)

    def save(self, path: str | Path, bits: int = 16) -> int:
        """Write the packet to a file, whole or not at all; returns its bytes."""
        path, data = Path(path), self.to_bytes(bits)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_bytes(data)
        os.replace(part, path)
        return len(data)

    @classmethod
    def load(cls, path: str | Path, encoder: bytes | None = None) -> Packet:
        """Read a packet from a file, and no more of the file than its header promises."""
        try:
            with Path(path).open("rb") as file:
                head = file.read(HEADER_BYTES)
                length = _header(head)[-1]
                # reading sets aside what it is asked for, so it is never asked for more than there is
                rest = file.read(min(length, os.fstat(file.fileno()).st_size) + 1)
            return cls.from_bytes(head + rest, encoder)
        except OSError as error:
            raise UserError(f"cannot read packet {path}: {error.strerror}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def describe(self) -> dict[str, Any]:
        """What a person wants to know of a packet; of one not packed yet, what it would be at 16 bits."""
        m, d = self.z_MD.shape
        norm_M = self.z_MD.norm(dim=-1)
        norms = {"norm": {"min": float(norm_M.min()), "mean": float(norm_M.mean()), "max": float(norm_M.max())}}
        codec = self.codec(self.bits or 16)
        return {
            "version": VERSION,
            "codec": codec.name,
            "bits": codec.bits,
            "mode": self.mode,
            "latents": m,
            "width": d,
            "source_tokens": self.source_tokens,
            "ratio": self.ratio,
            "bytes": self.size(codec.bits),
            "header_bytes": HEADER_BYTES,
            "encoder": self.encoder.hex(),
        } | ({} if self.coded else norms)  # the numbers of vectors have no length


def _header(head: bytes | memoryview) -> tuple[int, int, int, int, int, int, bytes, int]:
    """Codec number, mode, M, D, ratio, source tokens, encoder and payload bytes of a header, each within its bounds."""
    if len(head) < HEADER_BYTES:
        raise UserError(f"packet is cut short: {len(head)} bytes, its header alone has {HEADER_BYTES}")
    magic, version, number, mode, m, d, ratio, source, made_by, length = HEADER.unpack_from(head)
    if magic != MAGIC:
        raise UserError(f"this is no LatentWire packet (it begins with {magic!r}, not {MAGIC!r})")
    if version != VERSION:
        raise UserError(f"packet has version {version}, this LatentWire reads version {VERSION}")
    if mode >= len(MODES) or not (m and 0 < d <= MAX_WIDTH and ratio and source):
        raise UserError("packet header is damaged: its mode, shape, ratio or source length is impossible")
    if length != by_number(number).nbytes(m, d):
        raise UserError(f"packet header is damaged: {length} bytes of payload cannot hold {m} x {d} values")
    return number, mode, m, d, ratio, source, made_by, length
