"""Packets that were damaged or forged, read by the million: ``python benchmarks/fuzz_packets.py --n 1000000``.

Packets of every codec are mutated (``fuzz_mutations.py``): bits flipped, cut, spliced, fields of the header changed,
payloads and scales made up. In half of them length and checksum are made to fit again, so that what stands behind the
checksum is reached. Each must be refused with a ``UserError``, or be a packet as good as any. Everything else is a
failure: another exception (a warning is one), more than a second, more memory than the page of the format allows, a
damaged packet that is read although nobody mended its checksum. A failure is kept with its bytes; ``--case`` reads one
again. Counts go to ``benchmarks/results/fuzz-packets.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import platform
import resource
import signal
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_mutations import FIELDS, corpus, made

from latentwire import __version__
from latentwire.data.progress import progress
from latentwire.errors import UserError
from latentwire.packets import Packet
from latentwire.packets.packet import HEADER
from latentwire.types import MODES

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "fuzz-packets.json"
SECONDS, HANGS = 1.0, 10
"""How long a packet may take; and when it is taken for one that never ends."""
HEADROOM = 1 << 30
"""Bytes of address space that reading may take on top of what the process has."""
CHUNK = 5_000


def allowed(size: int) -> int:
    """Bytes of memory that reading a packet of ``size`` bytes may take: docs/packet-format.md."""
    return 32 * size + (64 << 10)


def wrong(data: bytes, packet: Packet, mended: bool, known: set[bytes]) -> str | None:
    """What is wrong with a packet that was read, if anything is."""
    if not mended and data not in known:
        return "damaged, and read all the same"
    head = dict(zip(FIELDS, HEADER.unpack_from(data), strict=True))
    told: dict[str, int | bytes] = {
        "m": packet.z_MD.shape[0],
        "d": packet.z_MD.shape[1],
        "ratio": packet.ratio,
        "source": packet.source_tokens,
    }
    told |= {"mode": MODES.index(packet.mode), "encoder": packet.encoder}
    if any(head[name] != value for name, value in told.items()):
        return "read as something else than its header says"
    if packet.z_MD.dtype != torch.float32 or not packet.z_MD.isfinite().all():
        return "read with values that are no numbers"
    if packet.size(packet.bits or 0) != len(data) or len(packet.to_bytes(packet.bits or 0)) != len(data):
        return "cannot be written again"
    return None


def outcome(error: UserError) -> str:
    """Why a packet was refused, without the numbers of the one that was."""
    for words, name in (
        ("cut short", "cut short"), ("followed by", "followed by other bytes"), ("checksum", "checksum"),
        ("no LatentWire packet", "not a packet"), ("has version", "version"), ("no codec", "codec"),
        ("header is damaged: its", "mode, shape, ratio or source"), ("cannot hold", "length"),
        ("made by encoder", "another encoder"), ("infinite or not a number", "not finite"),
    ):  # fmt: skip
        if words in str(error):
            return f"refused: {name}"
    return f"refused in words of its own: {error}"


class Hang(BaseException):
    """A packet that was not done in time."""


def _ring(*_: Any) -> None:
    raise Hang


@contextlib.contextmanager
def guarded() -> Generator[None]:
    """No warnings, no end of time, no end of memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    if pages.exists():  # Linux: what the process has now, and so much more
        limit = int(pages.read_text().split()[0]) * resource.getpagesize() + HEADROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    rang = signal.signal(signal.SIGALRM, _ring)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        tracemalloc.stop()
        signal.signal(signal.SIGALRM, rang)
        resource.setrlimit(resource.RLIMIT_AS, before)


def read(data: bytes, encoder: bytes | None, file: Path | None) -> tuple[Packet | UserError | str, float, int]:
    """A packet, why it was refused, or how reading it failed; its seconds; its peak of memory in bytes."""
    base, found = tracemalloc.get_traced_memory()[0], None
    tracemalloc.reset_peak()
    began = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    try:
        found = Packet.from_bytes(data, encoder) if file is None else Packet.load(file, encoder)
    except UserError as error:
        found = error
    except Hang:
        found = f"not done after {HANGS} s"
    except BaseException as error:
        found = f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return found, time.perf_counter() - began, tracemalloc.get_traced_memory()[1] - base


def fuzz(seed: int, start: int, stop: int) -> dict[str, Any]:
    """Cases ``start`` to ``stop``: counts by mutation, mended or not, and outcome; failures with their bytes."""
    torch.set_num_threads(1)
    whole = corpus()
    known, counts, failures = set(whole), Counter(), []
    slowest, peak = 0.0, 0.0
    for data in whole:  # what is imported or made once belongs to no packet
        Packet.from_bytes(data)
    with guarded(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "packet.lw"
        for case in range(start, stop):
            name, data, mended = made(seed, case, whole)
            from_file = case % 50 == 0
            if from_file:
                file.write_bytes(data)
            encoder = b"another1" if case % 10 == 7 else None
            found, seconds, memory = read(data, encoder, file if from_file else None)
            slowest, peak = max(slowest, seconds), max(peak, memory / allowed(len(data)))
            if isinstance(found, Packet):
                what = "read" if data not in known else "read: it had not changed"
                bad = "of another encoder, and read" if encoder else wrong(data, found, mended, known)
            else:
                what = outcome(found) if isinstance(found, UserError) else "failed"
                bad = found if isinstance(found, str) else None
            # reading from a file opens one, which costs memory of its own
            if memory > allowed(len(data)) + (from_file << 18):
                bad = f"took {memory} bytes of memory"
            if seconds > SECONDS:
                bad = f"took {seconds:.1f} s"
            counts[name, "mended" if mended else "as it is", what] += 1
            if bad:
                failures.append({"case": case, "mutation": name, "failure": bad, "bytes": data.hex()})
    return {"counts": counts, "failures": failures, "slowest": slowest, "peak": peak}


def fuzz_all(seed: int, n: int, workers: int) -> dict[str, Any]:
    """What the file holds, from ``n`` cases in ``workers`` processes."""
    began, counts, failures, slowest, peak, done = time.perf_counter(), Counter(), [], 0.0, 0.0, 0
    chunks = [(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]
    # not forked: a process that was begun with torch's threads in it may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool, progress("packets", n) as show:
        for future in as_completed([pool.submit(fuzz, seed, *chunk) for chunk in chunks]):
            found = future.result()
            counts += found["counts"]
            failures += found["failures"]
            slowest, peak = max(slowest, found["slowest"]), max(peak, found["peak"])
            done = sum(counts.values())
            show(done, f"{done:,} read, {len(failures)} failed, {done / (time.perf_counter() - began):,.0f}/s")
    seconds = time.perf_counter() - began
    table: dict[str, dict[str, dict[str, int]]] = {}
    outcomes: Counter[str] = Counter()
    for (name, mended, what), count in sorted(counts.items()):
        table.setdefault(name, {}).setdefault(mended, {})[what] = count
        outcomes[what] += count
    versions = {"latentwire": __version__, "python": platform.python_version()}
    versions |= {"torch": torch.__version__, "numpy": np.__version__}
    return {
        "n": n,
        "seed": seed,
        "failures": failures[:100],
        "failed": len(failures),
        "outcomes": dict(outcomes.most_common()),
        "mutations": table,
        "limits": {"seconds": SECONDS, "memory": "32 bytes for each byte of the packet and 64 KiB"},
        "slowest_ms": round(1000 * slowest, 2),
        "peak_share_of_memory_limit": round(peak, 3),
        "seconds": round(seconds, 1),
        "workers": workers,
        "versions": versions,
    }


def main() -> int:
    """The command; exit code 1 when anything failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--n", type=int, default=1_000_000, help="packets to read (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE", help="where the counts go")
    parser.add_argument("--case", type=int, help="read this case alone and say what comes of it")
    given = parser.parse_args()
    if given.case is not None:
        name, data, mended = made(given.seed, given.case, corpus())
        print(f"{name}, {'mended' if mended else 'as it is'}, {len(data)} bytes: {data.hex()}")
        try:
            print(Packet.from_bytes(data).describe())
        except UserError as error:
            print(f"refused: {error}")
        return 0
    found = fuzz_all(given.seed, given.n, given.workers)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for what, count in found["outcomes"].items():
        print(f"{count:>10,}  {what}")
    print(f"{found['n']:,} packets in {found['seconds']:,.0f} s, {found['failed']} failed: {given.out}")
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
