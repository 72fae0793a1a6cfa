"""The growing end of a store: records one behind the other in a file that is only ever appended to.

======  =====  ======================================================
offset  bytes  what (integers little-endian)
======  =====  ======================================================
0       4      ``LWr1``
4       2      bytes of the name
6       2      0
8       4      bytes of the packet
12      32     key
44      4      CRC-32 of key, name and packet
48      4      CRC-32 of bytes 0-47
52             the name in UTF-8, then the packet (``lw1``)
======  =====  ======================================================

Whoever reads it finds every whole record: an unfinished one at the end is left out, and where bytes are damaged reading
goes on at the next record. What is left out is told.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

import numpy as np

from latentwire.packets.key import KEY_BYTES

MAGIC = b"LWr1"
HEAD = struct.Struct("<4sHHI32sI")
SUM = struct.Struct("<I")
HEAD_BYTES = HEAD.size + SUM.size

View = Callable[[Path, int], "mmap | bytes"]
"""The first so many bytes of a file, mapped."""


@dataclass(frozen=True)
class Lost:
    """Bytes of a store that are no record. torn: the unfinished end of a log, nothing that was ever whole."""

    file: Path
    offset: int
    size: int
    reason: str
    torn: bool = False

    def __str__(self) -> str:
        return f"{self.file.name}: {self.size:,} bytes at {self.offset:,} are lost ({self.reason})"


def record(key: bytes, name: bytes, packet: bytes) -> bytes:
    """A record's bytes."""
    head = HEAD.pack(MAGIC, len(name), 0, len(packet), key, checksum(key, name, packet))
    return head + SUM.pack(zlib.crc32(head)) + name + packet


def checksum(key: bytes, name: bytes, packet: bytes) -> int:
    """CRC-32 of what a record holds."""
    return zlib.crc32(packet, zlib.crc32(name, zlib.crc32(key)))


class Log:
    """What a log held when it was last looked at (:meth:`scan`)."""

    def __init__(self, path: Path, view: View) -> None:
        self.path, self._view = path, view
        self.size = 0
        self.end = 0
        """Where the last whole record ends."""
        self.starts: list[int] = []
        self.lost: list[Lost] = []
        self.torn: Lost | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def scan(self) -> None:
        """Take up what was appended since. OSError: the file is gone."""
        self.size = self.path.stat().st_size
        data, at, self.torn = self._view(self.path, self.size), self.end, None
        while at < self.size:
            found = _head(data, at)
            if found is None:
                there = _next(data, at + 1)
                if there < 0:
                    self.torn = Lost(self.path, at, self.size - at, "an unfinished record at the end", torn=True)
                    return
                self.lost.append(Lost(self.path, at, there - at, "damaged"))
                self.end = at = there
                continue
            key, name, packet, total = found
            start = at + HEAD_BYTES
            end = start + name + packet
            if end > self.size:
                words = f"an unfinished record at the end, {self.size - at:,} of {end - at:,} bytes"
                self.torn = Lost(self.path, at, self.size - at, words, torn=True)
                return
            if zlib.crc32(data[start:end], zlib.crc32(key)) == total:
                self.starts.append(at)
            else:
                self.lost.append(Lost(self.path, at, end - at, f"damaged record {key.hex()[:12]}"))
            self.end = at = end

    def grown(self, size: int) -> None:
        """A record of so many bytes was appended by whoever calls this."""
        self.starts.append(self.end)
        self.end = self.size = self.end + size

    def start(self, row: int) -> int:
        """Where a record begins in the file."""
        return self.starts[row]

    def key(self, row: int) -> bytes:
        """Key of a record."""
        start = self.starts[row] + 12
        return self._data()[start : start + KEY_BYTES]

    def parts(self, row: int) -> tuple[bytes, bytes, bytes, int]:
        """Key, name, packet and checksum of a record."""
        data, at = self._data(), self.starts[row]
        _, name, _, packet, key, total = HEAD.unpack_from(data, at)
        start = at + HEAD_BYTES + name
        return key, data[at + HEAD_BYTES : start], data[start : start + packet], total

    def keys(self) -> np.ndarray:
        """All keys, uint8 [N, 32]."""
        data = self._data()
        joined = b"".join(data[start + 12 : start + 12 + KEY_BYTES] for start in self.starts)
        return np.frombuffer(joined, np.uint8).reshape(-1, KEY_BYTES)

    def _data(self) -> mmap | bytes:
        return self._view(self.path, self.size)


def _head(data: mmap | bytes, at: int) -> tuple[bytes, int, int, int] | None:
    """Key, bytes of name and of packet, and checksum of the record that begins at a place, if one does."""
    if len(data) - at < HEAD_BYTES:
        return None
    magic, name, zero, packet, key, total = HEAD.unpack_from(data, at)
    (own,) = SUM.unpack_from(data, at + HEAD.size)
    if magic != MAGIC or zero or own != zlib.crc32(data[at : at + HEAD.size]):
        return None
    return key, name, packet, total


def _next(data: mmap | bytes, at: int) -> int:
    """Where the next record begins, at this place or behind it; -1: nowhere."""
    while (at := data.find(MAGIC, at)) >= 0:
        if _head(data, at) is not None:
            return at
        at += 1
    return -1
