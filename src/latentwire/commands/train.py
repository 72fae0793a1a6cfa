"""``latentwire train CONFIG``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentwire.commands.options import DataDirOption, OutOption, SmokeOption


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A YAML file, for example configs/sandbox/wire.yaml.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, for example train.steps=20.")
    ] = None,
    data_dir: DataDirOption = None,
    out: OutOption = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the run's directory.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the config as it would run, and stop.")] = False,
    smoke: SmokeOption = False,
) -> None:
    """Train a wire; the same command goes on where a stopped run ended."""
    from latentwire.training.run import train as run

    path = run(config, list(overrides or ()), out=out, data_dir=data_dir, resume=resume, dry_run=dry_run, smoke=smoke)
    if not dry_run:
        typer.echo(f"The wire is in {path}. Next: latentwire eval {path}")
