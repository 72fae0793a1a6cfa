"""``latentwire plan CONFIG``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table


def plan(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A training config, for example configs/sandbox/wire.yaml.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, for example passages=8.")
    ] = None,
    gpu: Annotated[str, typer.Option(help="Whose peak the time of a step is reckoned with.")] = "H100",
    share: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of that peak that is assumed.")] = 0.3,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that the encoder is split over, with shard=true.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Say what a training run will take, before anything is loaded: parameters, memory, time of a step, packets."""
    from latentwire.config import load
    from latentwire.experiments.plan import plan as made
    from latentwire.training.check import check
    from latentwire.training.config import TrainConfig

    read = load(config, TrainConfig, overrides or [])
    check(read)
    found = made(read, gpu, share, processes)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    from rich.console import Console

    console = Console()
    for table in tables(found):
        console.print(table)
    step = found["step"]
    console.print(
        f"A step of {step['passages']} passages: {step['flops'] / 1e12:,.2f} TFLOP, {step['seconds']:.3g} s on "
        f"{step['gpus']} {gpu} at {step['share_of_peak']:.0%} of its peak (assumed); the run {step['hours']:g} hours.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def tables(found: dict[str, Any]) -> list[Table]:
    """Parameters, memory and packets."""
    from rich.table import Table

    parameters = Table("part", "parameters", "learn", title="Parameters", title_justify="left")
    for part, size in found["parameters"].items():
        parameters.add_row(
            part, f"{size['all'] / 1e6:,.1f} M", f"{size['learn'] / 1e6:,.1f} M" if size["learn"] else ""
        )
    memory = Table("device", "part", "GiB", title="Memory, estimated", title_justify="left")
    for place, parts in found["memory_gib"].items():
        for number, (part, size) in enumerate(parts.items()):
            memory.add_row("" if number else place, part, f"{size:,.2f}", style="bold" if part == "at most" else None)
    packets = Table("ratio", "latents", "positions", "saved", "bytes at 16, 8, 4 bits", title_justify="left")
    packets.title = f"Packets of {found['packets'][0]['tokens']} tokens"
    for row in found["packets"]:
        words = [" or ".join(map(str, row[key])) for key in ("positions", "positions_saved")]
        sizes = ", ".join(f"{size:,}" for size in row["bytes"].values())
        packets.add_row(f"{row['ratio']}×", str(row["latents"]), *words, sizes)
    return [parameters, memory, packets]
