"""Who appends to a store: one log at a time, under a name that no other process has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from latentwire.errors import UserError
from latentwire.packets.log import Log, Lost, View, record
from latentwire.packets.shard import Shard, seal, sync_folder

try:
    import fcntl
except ImportError:  # not on Windows: there nothing keeps a second writer out
    fcntl = None

LOG, SEALED, LOCK = ".log", ".safetensors", ".lock"


class Writer:
    """Holds the lock of a name, and the log that is being written.

    Nothing is ever cut off a log: a reader may have it mapped. Where a record was left unfinished, the log is sealed
    without it and another one begun. UserError: another process has the name.
    """

    def __init__(self, folder: Path, name: str, shard_bytes: int, view: View) -> None:
        self.folder, self.name, self.shard_bytes, self._view = folder, name, shard_bytes, view
        self._lock = _locked(folder / f"{name}{LOCK}", name)
        self._file: IO[bytes] | None = None
        self.log: Log | None = None

    def recover(self) -> list[Lost]:
        """Make whole what a process of this name left behind; what was lost of it."""
        lost: list[Lost] = []
        for path in self._mine(LOG):
            sealed = path.with_suffix(SEALED)
            if sealed.exists() and not Shard(sealed, self._view).lost:
                path.unlink()  # it was sealed, and no time was left to take it away
                continue
            log = Log(path, self._view)
            log.scan()
            if log.torn or log.lost:
                lost += [*log.lost, *([log.torn] if log.torn else [])]
                self._seal(log)
        return lost

    def append(self, key: bytes, name: bytes, packet: bytes) -> Log:
        """Write a record; the log it is in. OSError: the disk is full, and the like."""
        if self.log is None or self._file is None:
            self.log = self._begin()
            self._file = self.log.path.open("ab", buffering=0)
            sync_folder(self.folder)
        log, whole = self.log, record(key, name, packet)
        try:
            if self._file.write(whole) != len(whole):
                raise OSError(None, "the record was written in part alone; is the disk full?", str(log.path))
        except OSError:
            # behind half a record nothing can be found: what follows goes to another log
            self._file.close()
            self._file = self.log = None
            raise
        log.grown(len(whole))
        return log

    @property
    def full(self) -> bool:
        """Whether it is time to seal the log."""
        return self.log is not None and self.log.size >= self.shard_bytes

    def seal(self) -> Shard | None:
        """Make a shard of the log, if there is one with anything in it."""
        log = self.log
        if log is None or self._file is None:
            return None
        self.sync()
        self._file.close()
        self._file = self.log = None
        return self._seal(log)

    def sync(self) -> None:
        """What was appended outlives a loss of power."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the log and of the name."""
        self.sync()
        if self._file is not None:
            self._file.close()
        self._file = self.log = None
        self._lock.close()

    def _begin(self) -> Log:
        """The last log gone on with, or a new one behind all files of this name."""
        logs, shards = self._mine(LOG), self._mine(SEALED)
        last = max((_number(path) for path in (*logs, *shards)), default=-1)
        if logs and _number(logs[-1]) == last:
            log = Log(logs[-1], self._view)
            log.scan()
            if not log.torn:
                return log
        path = self.folder / f"{self.name}-{last + 1:06}{LOG}"
        path.touch()
        log = Log(path, self._view)
        log.scan()
        return log

    def _seal(self, log: Log) -> Shard | None:
        sealed = log.path.with_suffix(SEALED)
        if len(log):
            seal(log, sealed)
        if log.lost:  # somebody may want to look at it
            os.replace(log.path, log.path.with_suffix(f"{LOG}.damaged"))
        else:
            log.path.unlink()
        return Shard(sealed, self._view) if len(log) else None

    def _mine(self, ending: str) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"*{ending}") if writer_of(path) == self.name)


def writer_of(path: Path) -> str:
    """Who wrote a file of a store."""
    return path.stem.rpartition("-")[0]


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _locked(path: Path, name: str) -> IO[bytes]:
    file = path.open("ab")
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise UserError(
            f"another process is writing to {path.parent} as {name!r}; wait for it, or write under another name"
        ) from None
    return file


def at_work(folder: Path, name: str) -> bool:
    """Whether a process writes under this name now."""
    try:
        with (folder / f"{name}{LOCK}").open("rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
