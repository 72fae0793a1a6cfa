"""Work side by side: each piece a process of its own, on a device of its own where there are several."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")
LOOK = 1.0
"""Seconds between two looks at what is running."""


def run_all(
    todo: Sequence[Item],
    parallel: int,
    places: Sequence[str],
    one: Callable[[Item, str | None], Found],
    after: Callable[[Item, Found], None],
    look: Callable[[], None] = lambda: None,
    stop: Callable[[], None] = lambda: None,
) -> None:
    """Do ``one(item, place)`` for every item, ``parallel`` at a time, in threads that only wait for their processes.

    places: GPUs, given out round robin; None is the place of each piece where there are none. after: called in this
    thread when an item is over. look: called about once a second while something runs. What ``one`` raises, or an
    interrupt, ends the whole: nothing new is begun, and ``stop`` is to end what runs.
    """
    free: Queue[str | None] = Queue()
    for number in range(parallel):
        free.put(places[number % len(places)] if places else None)

    def placed(item: Item) -> Found:
        place = free.get()  # what ends makes room on its own GPU: none gets more than its share
        try:
            return one(item, place)
        finally:
            free.put(place)

    with ThreadPoolExecutor(parallel) as pool:
        waiting = {pool.submit(placed, item): item for item in todo}
        try:
            while waiting:
                for done in wait(waiting, timeout=LOOK, return_when=FIRST_COMPLETED).done:
                    item = waiting.pop(done)
                    after(item, done.result())
                look()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def visible_gpus() -> list[str]:
    """Names of the GPUs that runs may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def environment(place: str | None, parallel: int = 1) -> dict[str, str]:
    """The environment of a process: one GPU, or on the CPU its share of the threads."""
    if place is not None:
        return os.environ | {"CUDA_VISIBLE_DEVICES": place}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    threads = max(1, (int(allowed) if allowed.isdecimal() else cores) // parallel)
    return os.environ | {"OMP_NUM_THREADS": str(threads)}


def reason(log: Path, code: int) -> str:
    """Why a process failed: the last line that it left, without the paths of this machine."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    # a path would name this machine in the results
    return re.sub(r"(?<!\w)/[\w.+/-]+", "…", lines[-1] if lines else f"exit code {code}")[:300]


@contextmanager
def claimed(folder: Path) -> Generator[int | None]:
    """Claim a folder for one process at a time; yields the claim's file descriptor, or None where another has it.

    A process that inherits the descriptor keeps the claim although its parent ends: a run whose sweep was killed is
    not begun a second time beside itself. Claims end with their processes, so none is ever left behind.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".claim", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)
