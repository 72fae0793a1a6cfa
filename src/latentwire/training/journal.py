"""The files a run writes while it goes: ``metrics.jsonl`` and ``diagnostics.jsonl``, one JSON object a line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
FILES = ("metrics.jsonl", "diagnostics.jsonl")


class Journal:
    """Lines of a run. main: whether this process writes; with False every method does nothing.

    step: where the run goes on. Lines of later steps, which a killed run wrote after its last checkpoint, are dropped
    (the steps come again), and so is a line that was cut off.
    """

    def __init__(self, out: Path, step: int, main: bool) -> None:
        self.main, self.files, self.told = main, {}, False
        if not main:
            return
        for name in FILES:
            path = out / name
            kept = [line for line in _lines(path) if line["step"] <= step] if step else []
            if kept or name == FILES[0] or path.exists():
                path.write_text("".join(json.dumps(line) + "\n" for line in kept))
            self.files[name] = path

    def metrics(self, row: dict[str, Any]) -> None:
        """A line of metrics.jsonl: a step, an evaluation of the slice kept aside, or an event."""
        self._write(FILES[0], row)

    def diagnostics(self, row: dict[str, Any]) -> None:
        """A line of diagnostics.jsonl."""
        self._write(FILES[1], row)

    def _write(self, name: str, row: dict[str, Any]) -> None:
        if not self.main:
            return
        try:
            with self.files[name].open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:  # a full disk: hours of training are worth more than a line about them
            if not self.told:
                log.warning("%s cannot be written (%s); the run goes on without", self.files[name], error)
            self.told = True


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return found
