"""A job of ``benchmarks/on_gpus.py``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARE = 0.25
"""Part of a GPU that a short run of sandbox models has: one of them does not keep it busy."""


@dataclass(frozen=True)
class Job:
    """Commands, one behind the other. seconds: on an H100. gpus: alone on so many, if share is 1. after: names of jobs
    that must be finished."""

    name: str
    commands: list[list[str]]
    seconds: int
    gpus: int = 1
    share: float = 1.0
    after: tuple[str, ...] = ()


def script(name: str, *words: str | Path | float) -> list[str]:
    return [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *map(str, words)]
