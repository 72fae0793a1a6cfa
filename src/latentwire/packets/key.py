"""What a packet in a store is called: a hash of all that decides what is in it. And where, among millions, a key is."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

import numpy as np

KEY_BYTES = 32
WHAT = b"latentwire packet 1\0"
SETTINGS = struct.Struct("<8sHBBQ")

RECENT = 1 << 16
"""Keys that may wait before they are sorted in with the rest."""


def key_of(text: str, ratio: int, bits: int, encoder: bytes, question: str | None = None) -> bytes:
    """SHA-256 over a text and what it is encoded with: other settings, or another encoder, make another packet of it.

    question: in prompt mode, the one that is encoded behind the text. Of packets of learned codes ``bits`` is how many
    of them a latent has, and ``encoder`` names their books too (:meth:`latentwire.wire.Wire.made_by`).

    >>> key_of("Tesla was born in 1856.", ratio=4, bits=8, encoder=b"8 bytes!").hex()[:16]
    '05107b66765b7da3'
    """
    body = text.encode()
    head = SETTINGS.pack(encoder, ratio, bits, question is not None, len(body))
    return hashlib.sha256(WHAT + head + body + (question or "").encode()).digest()


class Index:
    """Where keys are: sixteen bytes for each of them, sorted, and a dictionary of the latest.

    A place is a whole number of its owner's making. rest_at: what follows the first eight bytes of the key at a place.
    Keys are sorted by those eight, and it takes the rest to be the one.
    """

    def __init__(self, rest_at: Callable[[int], bytes]) -> None:
        self.rest_at = rest_at
        self.hash_N, self.place_N = np.empty(0, np.uint64), np.empty(0, np.int64)
        self.recent: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self.hash_N) + len(self.recent)

    def find(self, key: bytes) -> int | None:
        """The place of a key, or None."""
        if (place := self.recent.get(key)) is not None:
            return place
        hashed = np.frombuffer(key, "<u8", 1)[0]
        at = int(np.searchsorted(self.hash_N, hashed))
        while at < len(self.hash_N) and self.hash_N[at] == hashed:
            if self.rest_at(int(self.place_N[at])) == key[8:]:
                return int(self.place_N[at])
            at += 1
        return None

    def add(self, key: bytes, place: int) -> bool:
        """Take up a key; False where it is there already, and stays where it is."""
        if self.find(key) is not None:
            return False
        self.recent[key] = place
        # sorting anew takes long where there are many: then more may wait
        if len(self.recent) > max(RECENT, len(self.hash_N) // 8):
            keys = np.frombuffer(b"".join(self.recent), np.uint8).reshape(len(self.recent), -1)
            places = np.fromiter(self.recent.values(), np.int64, len(self.recent))
            self._sort([(self.hash_N, self.place_N), (hashes(keys), places)])
            self.recent.clear()
        return True

    def fill(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """Take up many at once, in place of all there were: hashes (see :func:`hashes`) and places of each part.
        Of equal keys the first stays."""
        self.recent.clear()
        self._sort([(np.empty(0, np.uint64), np.empty(0, np.int64)), *parts])
        again = np.flatnonzero(self.hash_N[1:] == self.hash_N[:-1]) + 1
        drop = []
        for at in again.tolist():
            # of equal hashes: the keys are equal too, but for one case in 2 ** 64
            begin = int(np.searchsorted(self.hash_N, self.hash_N[at]))
            rest = self.rest_at(int(self.place_N[at]))
            if any(self.rest_at(int(self.place_N[i])) == rest for i in range(begin, at)):
                drop.append(at)
        if drop:
            self.hash_N, self.place_N = np.delete(self.hash_N, drop), np.delete(self.place_N, drop)

    def _sort(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
        hash_N, place_N = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.argsort(hash_N, kind="stable")
        self.hash_N, self.place_N = hash_N[order], place_N[order]


def hashes(keys_NK: np.ndarray) -> np.ndarray:
    """What keys (uint8 [N, 32]) are sorted by: their first eight bytes, uint64 [N]."""
    return np.ascontiguousarray(keys_NK[:, :8]).view("<u8")[:, 0]
