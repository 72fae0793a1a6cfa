"""Many packets in one folder: each writer appends to files of its own, any number of readers find them by their key.

A writer appends to a log (``log.py``). A full log is sealed as a safetensors file (``shard.py``), and another begun.
Files only grow, or are replaced whole: a reader never meets half a record, and a process that is killed loses no more
than the record it was writing. ``docs/store.md`` tells how to use it.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latentwire.errors import UserError
from latentwire.packets.key import KEY_BYTES, Index, hashes
from latentwire.packets.log import Log, Lost, checksum
from latentwire.packets.packet import Packet
from latentwire.packets.shard import FORMAT, Shard
from latentwire.packets.writer import LOG, SEALED, Writer, at_work, writer_of

MARK = "store.json"
SHARD_BYTES = 128 << 20
"""A log is sealed once it has so many bytes."""
NAME_MOST = 1024
MAPS = 64
"""Files that are mapped at a time."""


@dataclass(frozen=True)
class Entry:
    """One packet of a store. key: see :func:`latentwire.packets.key.key_of`. name: what the writer called it, perhaps
    nothing. data: the packet's bytes."""

    key: bytes
    name: str
    data: bytes

    @property
    def packet(self) -> Packet:
        """The packet itself. UserError: it is damaged."""
        try:
            return Packet.from_bytes(self.data)
        except UserError as error:
            raise UserError(f"packet {self.key.hex()[:12]} of the store: {error}") from None


class Store:
    """A folder of packets, made by :meth:`open`. Of several packets of one key the first counts.

    >>> import tempfile, torch
    >>> from latentwire.packets.key import key_of
    >>> packet = Packet(torch.ones(2, 8), source_tokens=7, ratio=4, mode="context", encoder=b"8 bytes!")
    >>> key = key_of("Tesla was born in 1856.", ratio=4, bits=8, encoder=packet.encoder)
    >>> with tempfile.TemporaryDirectory() as folder, Store.open(folder, write=True) as store:
    ...     store.append(key, packet, bits=8, name="tesla")
    ...     key in store, len(store), store.get(key).z_MD.shape
    True
    (True, 1, torch.Size([2, 8]))
    """

    def __init__(self, path: Path, writer: str | None, shard_bytes: int) -> None:
        self.path, self.name = path, writer
        self._view = functools.lru_cache(MAPS)(_mapped)
        self._files: list[Log | Shard] = []
        self._numbers: dict[str, int] = {}
        self._index = Index(lambda place: self._files[place >> 32].key(place & 0xFFFFFFFF)[8:])
        self._writer = None if writer is None else Writer(path, writer, shard_bytes, self._view)
        self._dropped: list[Lost] = [] if self._writer is None else self._writer.recover()
        self._load()

    @classmethod
    def open(cls, path: str | Path, write: bool = False, writer: str = "0", shard_bytes: int = SHARD_BYTES) -> Store:
        """The store in a folder; to write, it is made where there is none.

        writer: the name of whoever writes. Each has files of its own, so several processes write to one store under
        different names. shard_bytes: a log is sealed at this size.
        UserError: there is no store, or another process writes under this name.
        """
        path = Path(path)
        if not (writer.isascii() and writer.isalnum()):
            raise UserError(f"a writer's name has letters and digits alone, not {writer!r}")
        if not (path / MARK).is_file():
            if not write:
                raise UserError(f"{path} holds no store of packets; `latentwire encode … --store {path}` makes one")
            _make(path)
        told = (path / MARK).read_text(encoding="utf-8", errors="replace").strip()
        if told != _MARKED.strip():
            raise UserError(f"{path / MARK} says {told[:80]!r}; this LatentWire reads {FORMAT}")
        return cls(path, writer if write else None, shard_bytes)

    # -- reading ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: bytes) -> bool:
        return self.entry(key, data=False) is not None

    def get(self, key: bytes) -> Packet | None:
        """The packet of a key, or None. UserError: it is damaged."""
        entry = self.entry(key)
        return None if entry is None else entry.packet

    def entry(self, key: bytes, data: bool = True) -> Entry | None:
        """A packet as it stands in the store, with its name, or None. data: without it, only that it is there."""
        while True:
            try:
                place = self._index.find(key)
                if place is None:
                    return None
                return self._entry(place) if data else Entry(key, "", b"")
            except FileNotFoundError:  # a log was sealed meanwhile: the same records are in a shard now
                self._load()

    def iterate(self) -> Iterator[Entry]:
        """All packets, file by file, in the order they were appended in."""
        for stem in list(self._numbers):
            row = 0
            while (number := self._numbers.get(stem)) is not None and row < len(self._files[number]):
                place = (number << 32) + row
                try:
                    entry = self._entry(place)
                    first = self._index.find(entry.key) == place
                except FileNotFoundError:
                    self._load()
                    continue
                row += 1
                if first:
                    yield entry

    def find(self, name: str) -> Iterator[Entry]:
        """The packets that are called so, or whose key begins so (in hex)."""
        return (each for each in self.iterate() if each.name == name or each.key.hex().startswith(name.lower()))

    def refresh(self) -> None:
        """See what writers have appended since."""
        try:
            if {path.name for path in _files(self.path)} == {file.path.name for file in self._files}:
                for number, file in enumerate(self._files):
                    if isinstance(file, Log):
                        before = len(file)
                        file.scan()
                        for row in range(before, len(file)):
                            self._index.add(file.key(row), (number << 32) + row)
                return
        except FileNotFoundError:
            pass
        self._load()

    @property
    def lost(self) -> list[Lost]:
        """What is no record: damaged stretches, and what a writer left unfinished (not while it is at work)."""
        found = list(self._dropped)
        for file in self._files:
            found += file.lost
            if file.torn and not at_work(self.path, writer_of(file.path)):
                found.append(file.torn)
        return found

    @property
    def files(self) -> list[Log | Shard]:
        """What it is made of."""
        return list(self._files)

    def verify(self, seen: Callable[[int], None] = lambda done: None) -> Iterator[Lost]:
        """Read every packet there is, and tell which are damaged; then what else is :attr:`lost`. seen: is told how
        many packets have been read."""
        done = 0
        for file in self.files:
            for row in range(len(file)):
                done += 1
                seen(done)
                key, name, data, total = file.parts(row)
                try:
                    if checksum(key, name, data) != total:
                        raise UserError("its checksum does not fit")
                    name.decode()
                    Packet.from_bytes(data)
                except (UserError, UnicodeDecodeError) as error:
                    yield Lost(file.path, file.start(row), len(data), f"packet {key.hex()[:12]}: {error}")
        yield from self.lost

    # -- writing ----------------------------------------------------------------------------------------------------

    def append(self, key: bytes, packet: Packet | bytes, bits: int = 8, name: str = "") -> bool:
        """Write a packet behind the others. False: its key is in the store already, and what is there stays.

        It outlives the process once this returns, and a loss of power after :meth:`sync`. packet: latents, which are
        packed at so many ``bits``, or the bytes of a packet. UserError: damaged bytes, values that are no numbers, a
        name of more than 1,024 bytes, a store that is open for reading.
        """
        if self._writer is None:
            raise UserError(f"{self.path} is open for reading; Store.open(…, write=True) writes")
        if len(key) != KEY_BYTES:
            raise UserError(f"a key has {KEY_BYTES} bytes, not {len(key)}; key_of makes one")
        label = name.encode(errors="replace")
        if len(label) > NAME_MOST:
            raise UserError(f"the name {name[:40]!r}… has {len(label)} bytes; at most {NAME_MOST} are kept")
        if key in self:
            return False
        if isinstance(packet, bytes):
            Packet.from_bytes(packet)
        log = self._writer.append(key, label, packet if isinstance(packet, bytes) else packet.to_bytes(bits))
        number = self._numbers.setdefault(log.path.stem, len(self._files))
        self._files[number:] = [log, *self._files[number + 1 :]]
        self._index.add(key, (number << 32) + len(log) - 1)
        if self._writer.full:
            self.seal()
        return True

    def seal(self) -> None:
        """Make a safetensors file of the log that is being written, if there is one."""
        shard = None if self._writer is None else self._writer.seal()
        if shard is not None:
            self._files[self._numbers[shard.path.stem]] = shard

    def sync(self) -> None:
        """What was appended is on the disk when this returns."""
        if self._writer is not None:
            self._writer.sync()

    def close(self) -> None:
        """Let go of its files; what was appended is on the disk."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
        self._view.cache_clear()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Read the folder anew."""
        files: list[Log | Shard] | None = None
        while files is None:
            try:
                files = [_opened(path, self._view) for path in _files(self.path)]
                self._files = files
                self._numbers = {file.path.stem: number for number, file in enumerate(files)}
                self._index.fill(
                    [(hashes(file.keys()), (n << 32) + np.arange(len(file))) for n, file in enumerate(files)]
                )
            except FileNotFoundError:  # a log was sealed since the folder was read
                files = None

    def _entry(self, place: int) -> Entry:
        key, name, data, _ = self._files[place >> 32].parts(place & 0xFFFFFFFF)
        return Entry(key, name.decode(errors="replace"), data)


_MARKED = json.dumps({"format": FORMAT}) + "\n"


def _make(path: Path) -> None:
    """An empty store; several processes may begin it at once."""
    strange = path.exists() and (not path.is_dir() or any(not each.name.endswith(MARK) for each in path.iterdir()))
    if strange and not (path / MARK).is_file():  # another process may have made it just now
        raise UserError(f"{path} is neither a store of packets nor an empty folder; give another one")
    path.mkdir(parents=True, exist_ok=True)
    part = path / f".{os.getpid()}.{MARK}"
    part.write_text(_MARKED, encoding="utf-8")
    os.replace(part, path / MARK)


def _files(folder: Path) -> list[Path]:
    """Logs and shards of a store, in order. Logs are listed first: one that is sealed meanwhile is met as a shard."""
    found = {path.stem: path for path in folder.glob(f"*{LOG}")}
    found |= {path.stem: path for path in folder.glob(f"*{SEALED}")}
    return [path for _, path in sorted(found.items())]


def _opened(path: Path, view: Any) -> Log | Shard:
    if path.suffix == SEALED:
        shard = Shard(path, view)
        if not (shard.lost and path.with_suffix(LOG).exists()):
            return shard
    log = Log(path.with_suffix(LOG), view)
    log.scan()
    return log


def _mapped(path: Path, size: int) -> mmap.mmap | bytes:
    """The first ``size`` bytes of a file."""
    if size == 0:  # nothing of an empty file can be mapped
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
