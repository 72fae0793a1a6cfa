"""``latentwire train CONFIG``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentwire.commands.options import DataDirOption, OutOption, SmokeOption, quiet_libraries

SMOKE = (
    "steps=2 minutes=0 passages=3 asks=1 warmup=1 log_every=1 eval_every=2 save_every=2 "
    "corpus.windows=8 corpus.contexts=8 corpus.made=8 corpus.written=0 corpus.dev=3 corpus.threads=1"
)


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A YAML file, for example configs/sandbox/wire.yaml.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, for example steps=20.")
    ] = None,
    data_dir: DataDirOption = None,
    out: OutOption = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the run's directory.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the config as it would run, and stop.")] = False,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only tokenise the run's data into corpus.cache, on the CPU, and stop.")
    ] = False,
    questions: Annotated[
        int | None,
        typer.Option(
            "--eval",
            metavar="N",
            min=0,
            help="Then answer N of the questions that come along, 0 for all; what it found lies in `valid` of the run.",
        ),
    ] = None,
    smoke: SmokeOption = False,
) -> None:
    """Train a wire; the same command goes on where a stopped run ended."""
    quiet_libraries()
    from latentwire.training.run import train as run

    # what was typed comes last, so that it holds in a smoke run too
    given = [*(SMOKE.split() if smoke else ()), *(overrides or ())]
    data = None if data_dir is None else str(data_dir)
    if prepare:
        _prepare(config, given, data)
        return
    path = run(config, given, out=out, data_dir=data, resume=resume, dry_run=dry_run)
    if dry_run:
        return
    if questions is None:
        typer.echo(f"The wire is in {path}. Next: latentwire eval {path}")
        return
    from latentwire.experiments.trial import answer_valid

    if smoke:
        questions = min(questions or 4, 4)
    found = answer_valid(path.parent, questions)
    if found is not None:
        typer.echo(f"The wire is in {path}, what it answers in {found}.")


def _prepare(config: Path, overrides: list[str], data: str | None) -> None:
    from latentwire.config import load
    from latentwire.training.check import check
    from latentwire.training.config import TrainConfig
    from latentwire.training.setup import keep_stores

    tree = load(config, TrainConfig, overrides)
    check(tree)
    for name, size in keep_stores(tree, data).items():
        typer.echo(f"{tree.corpus.cache}: {name}, {size:,} passages")
