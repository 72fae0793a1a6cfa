"""The container, first form: a header of 32 bytes, then the codec's payload.

=======  =====  ==================================================================
offset   bytes  what (integers little-endian)
=======  =====  ==================================================================
0        3      ``LW1``
3        1      version of the header (1)
4        1      codec number
5        1      mode: 0 context, 1 prompt
6        2      M, latents
8        2      D, width of a latent
10       2      ratio, source tokens per latent
12       4      source tokens the latents stand for
16       8      fingerprint of the encoder
24       4      length of the payload
28       4      CRC-32 of bytes 0-27 and the payload
=======  =====  ==================================================================
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from latentwire.codecs import by_bits, by_number
from latentwire.errors import UserError
from latentwire.types import MODES

MAGIC, VERSION = b"LW1", 1
HEADER = struct.Struct("<3sBBBHHHI8sI")
HEADER_BYTES = HEADER.size + 4
MAX_LATENTS, MAX_WIDTH = 65_535, 8_192


@dataclass(frozen=True, eq=False)
class Packet:
    """Latents of one text. z_MD: float32 on the CPU. encoder: eight bytes of the wire that made them."""

    z_MD: Tensor
    source_tokens: int
    ratio: int
    mode: str
    encoder: bytes
    bits: int | None = None

    def to_bytes(self, bits: int = 16) -> bytes:
        """Header and payload; ``bits`` per value is 16, 8 or 4 (scales come on top, see :meth:`size`)."""
        codec = by_bits(bits)
        m, d = self.z_MD.shape
        if not (0 < m <= MAX_LATENTS and 0 < d <= MAX_WIDTH):
            raise UserError(f"a packet holds 1 to {MAX_LATENTS} latents of at most {MAX_WIDTH} values, not {m} x {d}")
        payload = codec.encode(self.z_MD)
        head = HEADER.pack(MAGIC, VERSION, codec.number, MODES.index(self.mode), m, d, self.ratio,
                           self.source_tokens, self.encoder, len(payload))  # fmt: skip
        return head + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))) + payload

    @classmethod
    def from_bytes(cls, data: bytes, encoder: bytes | None = None) -> Packet:
        """Read a packet; everything is checked before anything is allocated.

        encoder: fingerprint of the wire that is to use it; a packet of another encoder is refused.
        """
        if len(data) < HEADER_BYTES:
            raise UserError(f"packet is cut short: {len(data)} bytes, its header alone has {HEADER_BYTES}")
        magic, version, number, mode, m, d, ratio, source, made_by, length = HEADER.unpack_from(data)
        if magic != MAGIC:
            raise UserError(f"this is no LatentWire packet (it begins with {data[:3]!r}, not {MAGIC!r})")
        if version != VERSION:
            raise UserError(f"packet has version {version}; this LatentWire reads version {VERSION}")
        codec = by_number(number)
        if mode >= len(MODES) or not m or not 0 < d <= MAX_WIDTH or not ratio:
            raise UserError("packet header is damaged: mode, shape or ratio is impossible")
        if length != codec.nbytes(m, d):
            raise UserError(f"packet header is damaged: {length} bytes of payload cannot hold {m} x {d} values")
        if len(data) != HEADER_BYTES + length:
            kind = "cut short" if len(data) < HEADER_BYTES + length else "followed by other bytes"
            raise UserError(f"packet is {kind}: {len(data)} bytes, expected {HEADER_BYTES + length}")
        payload = data[HEADER_BYTES:]
        (crc,) = struct.unpack_from("<I", data, HEADER.size)
        if crc != zlib.crc32(payload, zlib.crc32(data[: HEADER.size])):
            raise UserError("packet is damaged: its checksum does not fit; get it again from where it came")
        if encoder is not None and made_by != encoder:
            raise UserError(
                f"packet was made by encoder {made_by.hex()}, this wire's encoder is {encoder.hex()}; "
                "encode the text again with this wire"
            )
        z_MD = codec.decode(payload, m, d)
        if not z_MD.isfinite().all():
            raise UserError("packet holds values that are not numbers")
        return cls(z_MD, source, ratio, MODES[mode], made_by, codec.bits)

    def size(self, bits: int = 16) -> int:
        """Exact bytes of the packet at so many bits per value, header and scales included."""
        return HEADER_BYTES + by_bits(bits).nbytes(*self.z_MD.shape)

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
        """Read a packet from a file."""
        try:
            return cls.from_bytes(Path(path).read_bytes(), encoder)
        except OSError as error:
            raise UserError(f"cannot read packet {path}: {error.strerror}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def describe(self) -> dict[str, Any]:
        """What a person wants to know of a packet."""
        m, d = self.z_MD.shape
        norm_M = self.z_MD.norm(dim=-1)
        bits = self.bits or 16
        return {
            "version": VERSION,
            "bits": bits,
            "mode": self.mode,
            "latents": m,
            "width": d,
            "ratio": self.ratio,
            "source_tokens": self.source_tokens,
            "bytes": self.size(bits),
            "header_bytes": HEADER_BYTES,
            "encoder": self.encoder.hex(),
            "norm": {"min": float(norm_M.min()), "mean": float(norm_M.mean()), "max": float(norm_M.max())},
        }
