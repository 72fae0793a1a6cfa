"""``latentwire store``: what is in a folder of packets, whether it is whole, and one packet of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentwire.errors import UserError

if TYPE_CHECKING:
    from latentwire.packets.store import Entry

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="A folder that `encode --store` wrote.")]
SHORT = 12
"""Hex digits of a key that are shown."""


def list_packets(
    store: StoreArgument,
    rows: Annotated[int, typer.Option(min=0, help="Packets that are shown at most; 0: all.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="All packets, as JSON lines.")] = False,
) -> None:
    """List the packets of a store."""
    from latentwire.packets.store import Store

    with Store.open(store) as opened:
        if as_json:
            for entry in opened.iterate():
                typer.echo(json.dumps(_told(entry), ensure_ascii=False))
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        columns = ("key", "name", "mode", "latents", "tokens", "ratio", "bits", "bytes", "encoder")
        table = Table(*columns)
        shown = itertools.islice(opened.iterate(), rows or None)
        for entry in shown:
            told = _told(entry)
            told |= {"key": entry.key.hex()[:SHORT], "tokens": told.get("source_tokens", "")}
            table.add_row(*(Text(str(told.get(column, ""))) for column in columns))
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, 110)
        console.print(table)
        if table.row_count < len(opened):
            console.print(f"{len(opened) - table.row_count:,} more; --rows 0 shows all")
        size = sum(file.size for file in opened.files)
        typer.echo(f"{store}: {len(opened):,} packets, {size:,} bytes in {len(opened.files)} files")
        for lost in opened.lost:
            typer.echo(f"lost: {lost}")


def verify(store: StoreArgument) -> None:
    """Read every packet of a store; exit code 1 when any is damaged, or anything else is lost."""
    from latentwire.data.progress import progress
    from latentwire.packets.store import Store

    with Store.open(store) as opened:
        found = 0
        with progress("verify", sum(len(file) for file in opened.files)) as show:
            for lost in opened.verify(lambda done: show(done, f"{done:,} packets")):
                found += 1
                typer.echo(f"lost: {lost}")
        typer.echo(f"{store}: {len(opened):,} packets, " + (f"{found:,} findings" if found else "all whole"))
    if found:
        raise typer.Exit(1)


def show(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of a packet, or the beginning of its key.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PACKET", help="Write the packet to a file of its own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what one packet of a store is, or take it out."""
    from latentwire.packets.store import Store

    with Store.open(store) as opened:
        found = list(itertools.islice(opened.find(name), 2))
    if not found:
        raise UserError(f"{store} has no packet {name!r}; `latentwire store list {store}` shows what it has")
    if len(found) > 1:
        keys = " and ".join(entry.key.hex()[:SHORT] for entry in found)
        raise UserError(f"{name!r} is more than one packet of {store} ({keys} …); give more of a key")
    entry = found[0]
    told = {"key": entry.key.hex(), "name": entry.name, **entry.packet.describe()}
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        from latentwire.commands.inspect_page import print_page

        print_page(f"{store}: {entry.name or entry.key.hex()[:SHORT]}", told, None, 0)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(entry.data)
        typer.echo(f"{output}: {len(entry.data)} bytes")


def _told(entry: Entry) -> dict[str, object]:
    """A line of the list. A damaged packet is listed too, with what is wrong."""
    told: dict[str, object] = {"key": entry.key.hex(), "name": entry.name, "bytes": len(entry.data)}
    try:
        found = entry.packet.describe()
    except UserError as error:
        return {**told, "mode": "damaged", "error": str(error)}
    return told | {key: found[key] for key in ("mode", "latents", "width", "source_tokens", "ratio", "bits", "encoder")}
