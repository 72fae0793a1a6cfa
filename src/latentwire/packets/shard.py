"""A full log, sealed: one safetensors file with all of its records, and where each of them is.

=============  ==============  =================================================
tensor         dtype, shape    what
=============  ==============  =================================================
name_offsets   int64 [N + 1]   where each name begins; the last: where all end
offsets        int64 [N + 1]   the same of packets
checksums      uint32 [N]      CRC-32 of key, name and packet
keys           uint8 [N, 32]
names          uint8           UTF-8, one behind the other
packets        uint8           packets (``lw1``), one behind the other
=============  ==============  =================================================

Any safetensors library opens it. Packets stand last: of a file that was cut short all whole ones are still read.
"""

from __future__ import annotations

import json
import math
import os
import struct
from mmap import mmap
from pathlib import Path
from typing import IO, Any

import numpy as np

from latentwire.packets.key import KEY_BYTES
from latentwire.packets.log import Log, Lost, View

FORMAT = "latentwire-store-1"
LENGTH = struct.Struct("<Q")
HEADER_MOST = 1 << 16
DTYPES = {"I64": np.dtype("<i8"), "U32": np.dtype("<u4"), "U8": np.dtype("u1")}
TENSORS = {"name_offsets": "I64", "offsets": "I64", "checksums": "U32", "keys": "U8", "names": "U8", "packets": "U8"}


def seal(log: Log, path: Path) -> None:
    """Write what a log holds as a shard, whole or not at all. The log stays as it is."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        _write(log, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """New names in a folder outlive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(log: Log, file: IO[bytes]) -> None:
    names, packets, sums = [0], [0], []
    for row in range(len(log)):
        _, name, packet, total = log.parts(row)
        names.append(names[-1] + len(name))
        packets.append(packets[-1] + len(packet))
        sums.append(total)
    n = len(log)
    shapes = {"name_offsets": [n + 1], "offsets": [n + 1], "checksums": [n], "keys": [n, KEY_BYTES]}
    shapes |= {"names": [names[-1]], "packets": [packets[-1]]}
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT}}
    at = 0
    for name, kind in TENSORS.items():
        size = math.prod(shapes[name]) * DTYPES[kind].itemsize
        header[name] = {"dtype": kind, "shape": shapes[name], "data_offsets": [at, at + size]}
        at += size
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    file.write(LENGTH.pack(len(told)) + told)
    file.write(np.array(names, "<i8").tobytes() + np.array(packets, "<i8").tobytes())
    file.write(np.array(sums, "<u4").tobytes() + log.keys().tobytes())
    for place in (1, 2):  # names, then packets, never all of them in memory
        for row in range(n):
            file.write(log.parts(row)[place])


class Shard:
    """A sealed shard, mapped. It never raises over what the file holds: a broken one has no records, and says so."""

    def __init__(self, path: Path, view: View) -> None:
        self.path, self._view = path, view
        self.size = path.stat().st_size
        self.lost: list[Lost] = []
        self.torn: Lost | None = None
        self._n, self._at = 0, {}
        try:
            self._open(view(path, self.size))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._n = 0
            self.lost = [Lost(path, 0, self.size, f"no whole shard: {error or type(error).__name__}")]

    def __len__(self) -> int:
        return self._n

    def _open(self, data: mmap | bytes) -> None:
        if self.size < LENGTH.size:
            raise ValueError("it is cut short")
        (length,) = LENGTH.unpack_from(data)
        base = LENGTH.size + length
        if not 2 <= length <= HEADER_MOST or base > self.size:
            raise ValueError("its header is damaged or cut short")
        header = json.loads(data[LENGTH.size : base])
        if header["__metadata__"]["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        n, at = header["checksums"]["shape"][0], 0
        if not isinstance(n, int) or not 0 <= n <= self.size:
            raise ValueError("its header is damaged")
        shapes: dict[str, Any] = {"name_offsets": [n + 1], "offsets": [n + 1], "checksums": [n], "keys": [n, KEY_BYTES]}
        for name, kind in TENSORS.items():
            told = header[name]
            start, end = told["data_offsets"]
            shape = shapes.get(name, [end - start])
            wanted = math.prod(shape) * DTYPES[kind].itemsize
            if told["dtype"] != kind or told["shape"] != shape or start != at or end - start != wanted:
                raise ValueError(f"its tensor {name} is not as it should be")
            self._at[name], at = base + start, end
            if name != "packets" and base + end > self.size:
                raise ValueError("it is cut short before its packets")
        for name, of in (("name_offsets", "names"), ("offsets", "packets")):
            offsets = np.frombuffer(data, "<i8", n + 1, self._at[name])
            told = header[of]["data_offsets"]
            if offsets[0] or offsets[-1] != told[1] - told[0] or (np.diff(offsets) < 0).any():
                raise ValueError(f"its {name} are damaged")
        there = self.size - self._at["packets"]
        self._n = int(np.searchsorted(offsets, there, side="right")) - 1 if there < offsets[-1] else n
        if self._n < n:
            words = f"cut short: {n - self._n} of {n} packets are gone"
            self.lost.append(
                Lost(self.path, self._at["packets"] + int(offsets[self._n]), there - int(offsets[self._n]), words)
            )
        elif self.size > self._at["packets"] + offsets[-1]:
            end = self._at["packets"] + int(offsets[-1])
            self.lost.append(Lost(self.path, end, self.size - end, "bytes behind the last packet"))

    def start(self, row: int) -> int:
        """Where a packet begins in the file."""
        (start,) = struct.unpack_from("<q", self._view(self.path, self.size), self._at["offsets"] + 8 * row)
        return self._at["packets"] + start

    def key(self, row: int) -> bytes:
        """Key of a record."""
        start = self._at["keys"] + KEY_BYTES * row
        return self._view(self.path, self.size)[start : start + KEY_BYTES]

    def parts(self, row: int) -> tuple[bytes, bytes, bytes, int]:
        """Key, name, packet and checksum of a record."""
        data = self._view(self.path, self.size)
        found = []
        for offsets, of in (("name_offsets", "names"), ("offsets", "packets")):
            start, end = struct.unpack_from("<2q", data, self._at[offsets] + 8 * row)
            found.append(data[self._at[of] + start : self._at[of] + end])
        (total,) = struct.unpack_from("<I", data, self._at["checksums"] + 4 * row)
        return self.key(row), found[0], found[1], total

    def keys(self) -> np.ndarray:
        """All keys, uint8 [N, 32]."""
        start = self._at.get("keys", 0)
        data = self._view(self.path, self.size)[start : start + KEY_BYTES * self._n]
        return np.frombuffer(data, np.uint8).reshape(-1, KEY_BYTES)
