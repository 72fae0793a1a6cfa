"""``latentwire sweep CONFIG``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentwire.commands.options import DataDirOption, OutOption, SmokeOption, quiet_libraries
from latentwire.commands.train import SMOKE


def sweep(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A sweep's YAML file, for example configs/sweeps/weights.yaml.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Overrides of every run, for example steps=20; of the sweep itself with evaluate., rank. or optuna. "
            "in front, for example evaluate.n=50.",
        ),
    ] = None,
    data_dir: DataDirOption = None,
    out: OutOption = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Runs side by side: spread over the GPUs, or sharing the CPU's threads.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the config of every run, how many there are and their cost; stop.")
    ] = False,
    smoke: SmokeOption = False,
) -> None:
    """Train and evaluate every run of a grid or a search; the same command goes on where it was stopped.

    Finished runs are kept and skipped. A run that fails is reported, the others go on, and the exit code is 1.
    """
    quiet_libraries()
    from latentwire.experiments.sweep import sweep as prepared
    from latentwire.experiments.table import print_runs

    data = None if data_dir is None else str(data_dir)
    tiny = SMOKE.split() if smoke else ()
    ready = prepared(config, overrides or (), out, data, workers, tiny, n=4 if smoke else None)
    if dry_run:
        typer.echo(ready.resolved(), nl=False)
        typer.echo(ready.words())
        return
    results = ready.go()
    print_runs(results)
    typer.echo(f"{ready.out / 'results.json'} holds the table, metrics_history.jsonl beside it a line for each run.")
    if results["failed"]:
        raise typer.Exit(1)
