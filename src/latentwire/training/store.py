"""Tokenised passages as plain arrays, and the file they are kept in."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Store:
    """Passages with what stands behind them. ``source``: the encoder's arrays. ``read``: per receiver its arrays
    (``ids``, ``count``, and ``next``/``next_count`` for text or ``questions``/``asks``/``length`` for questions).
    ``first``, ``many``: for questions, where a passage's questions begin in the question arrays, and how many."""

    source: dict[str, np.ndarray]
    read: dict[str, dict[str, np.ndarray]]
    first: np.ndarray | None = None
    many: np.ndarray | None = None

    @property
    def size(self) -> int:
        return len(self.source["count"])


def cached(store_name: str, key: dict, directory: str, make: Callable[[], Store]) -> Store:
    """A store kept as one uncompressed file in ``directory``, named by what it was made from.

    Runs that begin side by side and want the same store make it once: the others wait for the first.
    """
    if not directory:
        return make()
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:12]
    path = Path(directory) / f"{store_name}-{digest}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with waiting(path.with_suffix(".lock")):
        if path.is_file():
            with np.load(path, allow_pickle=False) as flat:
                return _unflatten(dict(flat))
        store = make()
        flat = {f"source/{k}": v for k, v in store.source.items()}
        flat |= {f"read/{name}/{k}": v for name, arrays in store.read.items() for k, v in arrays.items()}
        flat |= {k: v for k, v in (("first", store.first), ("many", store.many)) if v is not None}
        part = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(part, **flat)  # ty: ignore[invalid-argument-type]
        os.replace(part, path)
    return store


@contextmanager
def waiting(path: Path) -> Generator[None]:
    """Hold a lock file; it is let go with the process that holds it, however that ends."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _unflatten(flat: dict[str, np.ndarray]) -> Store:
    source, read = {}, defaultdict(dict)
    for key, value in flat.items():
        room, _, rest = key.partition("/")
        if room == "source":
            source[rest] = value
        elif room == "read":
            name, _, leaf = rest.partition("/")
            read[name][leaf] = value
    return Store(source, dict(read), flat.get("first"), flat.get("many"))
