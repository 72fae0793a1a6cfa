"""Texts by the million into a store: in constant memory, in full batches, in any number of processes, gone on with.

Which texts share a batch is decided by the input alone: its texts, each once, in windows of :data:`WINDOW`, sorted by
length within each. Process ``rank`` of ``world`` encodes every ``world``-th batch. So no two of them encode the same
text, and a packet comes out the same whatever the number of processes and however often they were killed: a batch that
is in the store already is passed over, one that is there in part is encoded again as a whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from latentwire.data.progress import progress
from latentwire.data.texts import TextRow, read_texts
from latentwire.errors import UserError
from latentwire.packets.key import Index, key_of
from latentwire.packets.store import NAME_MOST, Store
from latentwire.wire import Wire

WINDOW = 64
"""Batches that are sorted by length together."""
CHARACTERS = 1 << 24
"""Of text that a window holds at most, whatever the number of its rows."""

Keyed = tuple[bytes, TextRow]


@dataclass
class Done:
    """What came of it. rows: of the input. again: texts that had stood in an earlier row. mine: texts of this process's
    batches; ``before`` of them were in the store already, ``written`` were written, with so many ``nbytes``."""

    rows: int = 0
    again: int = 0
    mine: int = 0
    before: int = 0
    written: int = 0
    nbytes: int = 0
    seconds: float = 0.0


def place() -> tuple[int, int]:
    """``(rank, world)``: which process this is, and of how many, as torchrun and accelerate launch say in RANK and
    WORLD_SIZE; ``(0, 1)`` where nobody says."""
    told = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not all(each.isdecimal() for each in told) or int(told[0]) >= int(told[1]):
        raise UserError(
            f"RANK={told[0]} and WORLD_SIZE={told[1]}: expected a rank from 0 to below the number of processes"
        )
    return int(told[0]), int(told[1])


def encode_rows(
    wire: Wire,
    path: str | Path,
    store: Store,
    ratio: int,
    bits: int = 8,
    questions: bool = False,
    batch_size: int = 64,
    rank: int = 0,
    world: int = 1,
    codes: int | None = None,
) -> Done:
    """Encode the rows of a file (see :func:`latentwire.data.texts.read_texts`) into a store that is open for writing.

    codes: so many learned codes a latent, in place of values of so many ``bits``. All rows are checked before the first
    is encoded. UserError: a row that is no text, with its line; codes that the wire does not have.
    """
    if codes is not None:
        wire.books.stages(codes)
    done, began = Done(), time.perf_counter()
    done.rows = _check(path, questions)
    seen = Index(lambda place: place.to_bytes(8, "little", signed=True))
    with progress(f"encode {rank + 1}/{world}" if world > 1 else "encode", done.rows) as show:
        read, start = 0, time.perf_counter()
        rows = _keyed(wire, path, ratio, bits, questions, codes)
        for number, batch in enumerate(_batches(rows, seen, batch_size, done)):
            read += len(batch)
            if number % world != rank:
                continue
            done.mine += len(batch)
            missing = [key not in store for key, _ in batch]
            done.before += missing.count(False)
            if any(missing):
                _encode(wire, batch, missing, store, ratio, bits, codes, done)
            rate = done.written / (time.perf_counter() - start)
            show(read + done.again, f"{read + done.again:,} of {done.rows:,} rows, {rate:,.1f} texts/s")
    store.sync()
    done.seconds = time.perf_counter() - began
    return done


def _check(path: str | Path, questions: bool) -> int:
    """Rows of a file, each of them checked."""
    count = 0
    with progress("check") as show:
        for count, _ in enumerate(read_texts(path, questions), 1):
            if count % 1000 == 0:
                show(count, f"{count:,} rows")
    if not count:
        raise UserError(f"{path} holds no rows")
    return count


def _keyed(wire: Wire, path: str | Path, ratio: int, bits: int, questions: bool, codes: int | None) -> Iterator[Keyed]:
    encoder, fine = wire.made_by(codes is not None), bits if codes is None else codes
    for row in read_texts(path, questions):
        yield key_of(row.text, ratio, fine, encoder, row.question), row


def _batches(rows: Iterable[Keyed], seen: Index, batch_size: int, done: Done) -> Iterator[list[Keyed]]:
    """The batches of all processes, in one and the same order for each of them."""
    window: list[Keyed] = []
    held = 0
    for key, row in rows:
        # sixteen bytes of a key are enough to know a text by, and half as many to keep
        if not seen.add(key[:16], int.from_bytes(key[8:16], "little", signed=True)):
            done.again += 1
            continue
        window.append((key, row))
        held += len(row.text) + len(row.question or "")
        if len(window) == WINDOW * batch_size or held >= CHARACTERS:
            yield from _sorted(window, batch_size)
            window, held = [], 0
    yield from _sorted(window, batch_size)


def _sorted(window: list[Keyed], batch_size: int) -> Iterator[list[Keyed]]:
    window.sort(key=lambda each: len(each[1].text))
    for start in range(0, len(window), batch_size):
        yield window[start : start + batch_size]


def _encode(
    wire: Wire,
    batch: list[Keyed],
    missing: list[bool],
    store: Store,
    ratio: int,
    bits: int,
    codes: int | None,
    done: Done,
) -> None:
    texts = [row.text for _, row in batch]
    asked = [row.question for _, row in batch if row.question is not None]
    packets = wire.encode(texts, ratio, asked or None, batch_size=len(batch), codes=codes)
    for (key, row), packet, wanted in zip(batch, packets, missing, strict=True):
        if wanted:
            name = row.name.encode(errors="replace")[:NAME_MOST].decode(errors="ignore")
            store.append(key, packet, bits, name)
            done.written += 1
            done.nbytes += packet.size(bits)
