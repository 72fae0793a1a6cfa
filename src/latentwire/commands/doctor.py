"""``latentwire doctor``: is everything there that the rest needs?"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from latentwire.errors import UserError

LIBRARIES = ("torch", "transformers", "accelerate", "safetensors", "tokenizers", "huggingface_hub", "draccus")
EXTRAS = {
    "zstandard": "data",
    "datasets": "datasets",
    "lm_eval": "harness",
    "jinja2": "report",
    "matplotlib": "report",
    "fastapi": "serve",
    "uvicorn": "serve",
    "optuna": "sweep",
}


class Finding(NamedTuple):
    """One line of the report. ok: None where a thing may be absent."""

    what: str
    ok: bool | None
    found: str


def doctor() -> None:
    """Check versions, device, cache and shipped weights; exit code 1 when something is wrong."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 1))
    sound = True
    for what, ok, found in findings():
        mark = {True: "[green]ok[/]", False: "[red]wrong[/]", None: "[dim]–[/]"}[ok]
        table.add_row(mark, what, escape(found))
        sound = sound and ok is not False
    Console().print(table)
    if not sound:
        raise typer.Exit(1)


def findings() -> Iterator[Finding]:
    """Every check in turn; one that fails does not stop the others."""
    checks = {
        "python": _python,
        "libraries": _libraries,
        "device": _device,
        "cache": _cache,
        "shipped weights": _weights,
        "training data": _data,
        "extras": _extras,
    }
    for name, check in checks.items():
        try:
            yield from check()
        except (UserError, OSError, ImportError) as error:
            yield Finding(name, False, " ".join(str(error).split()))


def _python() -> Iterator[Finding]:
    yield Finding("python", sys.version_info >= (3, 10), f"{platform.python_version()} on {platform.platform()}")


def _libraries() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    declared = {}
    for line in importlib.metadata.requires("latentwire") or ():
        requirement = Requirement(line)
        declared.setdefault(requirement.name.lower().replace("-", "_"), requirement.specifier)
    for name in LIBRARIES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, False, "not installed; run pip install latentwire")
            continue
        wanted = declared.get(name)
        ok = wanted is None or wanted.contains(version, prereleases=True)
        yield Finding(name, ok, version if ok else f"{version}, expected {wanted}")


def _device() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
        yield Finding("device", True, f"{torch.cuda.device_count()} × {', '.join(sorted(names))}")
    else:
        yield Finding("device", True, "cpu")
    yield Finding("threads", True, f"{torch.get_num_threads()} of {os.cpu_count()} cores")


def _cache() -> Iterator[Finding]:
    from latentwire.weights import cache_dir

    path = cache_dir()
    path.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path).free / 2**30
    writable = os.access(path, os.W_OK)
    yield Finding(
        "cache", writable and free > 0.5, f"{path}, {free:.1f} GiB free" + ("" if writable else ", not writable")
    )


def _weights() -> Iterator[Finding]:
    from latentwire.weights import SHIPPED, check, shipped

    for name in SHIPPED:
        try:
            yield Finding(f"shipped {name}", True, f"{len(check(shipped(name)))} files, hashes right")
        except UserError as error:
            yield Finding(f"shipped {name}", False, str(error))


def _data() -> Iterator[Finding]:
    given = os.environ.get("LATENTWIRE_DATA")
    if not given:
        yield Finding("training data", None, "LATENTWIRE_DATA is not set; only training needs it")
        return
    there = Path(given).is_dir()
    yield Finding("training data", there, given if there else f"{given} is no directory")


def _extras() -> Iterator[Finding]:
    for name, extra in EXTRAS.items():
        there = importlib.util.find_spec(name) is not None
        yield Finding(
            name,
            True if there else None,
            importlib.metadata.version(name) if there else f"optional: pip install 'latentwire[{extra}]'",
        )
