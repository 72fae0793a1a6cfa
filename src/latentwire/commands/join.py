"""``latentwire join WIRE --receiver R [CONFIG]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentwire.commands.options import DataDirOption, OutOption, SmokeOption, WireArgument, quiet_libraries
from latentwire.commands.train import SMOKE


def join(
    wire: WireArgument,
    receiver: Annotated[
        str,
        typer.Option(
            "--receiver", "-r", metavar="MODEL", help="Who joins: a checkpoint directory, a hub id, or `sandbox:NAME`."
        ),
    ],
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [KEY=VALUE]...",
            help="A training config that describes the link (one that comes along if left out), and dotted overrides, "
            "for example minutes=30.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="What the link is called; as the receiver if left out.")
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Make the link anew that the wire has by this name.")
    ] = False,
    data_dir: DataDirOption = None,
    out: OutOption = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the run's directory.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the config as it would run, and stop.")] = False,
    smoke: SmokeOption = False,
) -> None:
    """Train a link for a receiver of yours; the wire's encoder and its other links stay as they are, bit for bit.

    The same command goes on where a stopped run ended.
    """
    quiet_libraries()
    from latentwire.config import config_hash
    from latentwire.saved import settings_of
    from latentwire.training.join import join_config
    from latentwire.training.run import train as run

    words = list(given or ())
    config = Path(words.pop(0)) if words and "=" not in words[0] else None
    made = join_config(wire, receiver, config, [*(SMOKE.split() if smoke else ()), *words], name, replace)
    (name,) = made.join
    path = run(
        made,
        out=out or Path("runs") / f"join-{name}-{config_hash(made)}",
        data_dir=None if data_dir is None else str(data_dir),
        resume=resume,
        dry_run=dry_run,
    )
    if dry_run:
        return
    others = ", ".join(other for other in settings_of(path).links if other != name)
    beside = f", beside {others} as they were" if others else ""
    typer.echo(f"The wire is in {path}, with a link for {name}{beside}.")
    typer.echo(f"Next: latentwire eval {path} --receivers {name}")
