"""The line that shows a training run on a terminal, and the plain lines that show it in a log file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def training_bar(total: int | None, quiet: bool = False) -> Generator[Callable[[int, int, dict[str, Any]], None]]:
    """Yields ``show(step, total, row)``; ``row`` is a line of metrics.jsonl. quiet: nothing is shown."""
    if quiet:
        yield lambda step, total, row: None
        return
    console = Console(file=sys.stderr)
    if not console.is_terminal:

        def line(step: int, total: int, row: dict[str, Any]) -> None:
            print(f"step {step}/{total or '?'} {words(row)}", file=sys.stderr, flush=True)

        yield line
        return
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[words]}"), console=console) as progress:
        task = progress.add_task("training", total=total, words="")

        def show(step: int, total: int, row: dict[str, Any]) -> None:
            progress.update(task, completed=step, total=total or None, words=words(row))

        yield show


def words(row: dict[str, Any]) -> str:
    """Loss, kind of step and speed in a few words."""
    rows, tokens = row["rows_per_second"], row["tokens_per_second"]
    speed = f"{rows:,.0f} rows/s" if rows else f"{tokens:,.0f} tokens/s"
    text = f"{row['source']} loss {row['loss']:.3f} · {speed}"
    return text + (f" · {row['utilisation']:.0%} of peak" if "utilisation" in row else "")
