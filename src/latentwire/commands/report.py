"""``latentwire report RUN…``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Folders that `eval` or `train` wrote, or results files (.json)."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page to write.")] = Path("report.html"),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The rows that `eval --data` was given, to show the questions; else the shipped ones."
        ),
    ] = None,
) -> None:
    """Make one HTML page of one or several runs: tables, figures, examples, settings."""
    from latentwire.experiments.report import report as run

    names = run(runs, out, data)
    typer.echo(f"{out} ({out.stat().st_size / 1024:,.0f} KB) shows {', '.join(names)}.")
