"""Progress of work on data: a bar on a terminal once the work takes longer than two seconds, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

PATIENCE = 2.0
"""Seconds of work that need no bar."""


@contextmanager
def progress(label: str, total: float | None = None) -> Generator[Callable[[float, str], None]]:
    """Yields ``show(completed, words)``; ``total`` in the same unit as ``completed``, None where it is not known."""
    if not sys.stderr.isatty():
        yield lambda completed, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(file=sys.stderr), transient=True)
    task = bar.add_task(label, total=total, words="")
    began = time.monotonic()

    def show(completed: float, words: str) -> None:
        bar.update(task, completed=completed, words=words)
        if not bar.live.is_started and time.monotonic() - began > PATIENCE:
            bar.start()

    try:
        yield show
    finally:
        bar.stop()
