"""``encode``, ``generate``, ``ask`` and ``inspect``: packets by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentwire.commands.options import (
    RatioOption,
    ReceiversOption,
    WireArgument,
    chosen_ratio,
    chosen_receivers,
    open_wire,
    read_text,
)
from latentwire.errors import UserError

TextFile = Annotated[Path, typer.Argument(metavar="FILE", help="A text file; - for stdin.")]
PacketFile = Annotated[Path, typer.Argument(metavar="PACKET", help="A packet that `latentwire encode` wrote.")]
Bits = Annotated[int, typer.Option(help="Bits per value: 16, 8 or 4.")]
Questions = Annotated[list[str], typer.Option("--question", "-q", help="A question; may be given several times.")]


def encode(
    wire: WireArgument,
    file: TextFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PACKET", help="The packet to write.")],
    ratio: RatioOption = None,
    bits: Bits = 8,
    question: Annotated[
        str | None, typer.Option("--question", "-q", help="Encode it too: the packet then answers this one alone.")
    ] = None,
) -> None:
    """Encode a text file into a packet that every receiver of the wire can read."""
    text = read_text(file)
    opened = open_wire(wire)
    packet = opened.encode([text], ratio=chosen_ratio(opened, ratio), questions=[question] if question else None)[0]
    data = packet.to_bytes(bits=bits)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(data)
    typer.echo(
        f"{output}: {len(packet.z_MD)} latents for {packet.source_tokens} tokens, "
        f"{len(data)} bytes for {len(text.encode())} bytes of text"
    )


def generate(
    wire: WireArgument,
    packet: Annotated[Path, typer.Option(metavar="PACKET", help="A packet that `latentwire encode` wrote.")],
    receiver: Annotated[str, typer.Option("--receiver", "-r", metavar="R", help="Who reads the packet.")],
    prompt: Annotated[list[str], typer.Option(help="What to ask; may be given several times.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 32,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token each time.")] = 0.0,
    seed: Annotated[int, typer.Option(help="For temperatures above 0.")] = 0,
) -> None:
    """Let a receiver read a packet and answer, one line for each prompt."""
    data = _read_packet(packet)
    opened = open_wire(wire)
    reading = opened.receiver(chosen_receivers(opened, [receiver])[0])
    received = _unpack(packet, data, opened.fingerprint)
    answers = reading.generate(received, prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    for answer in answers:
        typer.echo(answer)


def ask(
    wire: WireArgument,
    text: Annotated[Path, typer.Option(metavar="FILE", help="A text file; - for stdin.")],
    question: Questions,
    receiver: ReceiversOption = None,
    ratio: RatioOption = None,
    bits: Bits = 8,
) -> None:
    """Ask questions about a text: each receiver answers from the text and from the packet, side by side."""
    context = read_text(text)
    opened = open_wire(wire)
    names = chosen_receivers(opened, receiver)
    from rich.console import Console

    from latentwire.sandbox.demo import Passage, show_passage

    passage = Passage(str(text), context, [(each, ()) for each in question])
    show_passage(Console(), opened, passage, chosen_ratio(opened, ratio), bits=bits, receivers=names)


def inspect(packet: PacketFile) -> None:
    """Say what is in a packet, without any model."""
    data = _read_packet(packet)
    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(packet), show_header=False, title_justify="left")
    for key, value in _unpack(packet, data).describe().items():
        table.add_row(str(key).replace("_", " "), str(value))
    table.add_row("bytes", str(len(data)))
    Console().print(table)


def _read_packet(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"there is no packet {path}; make one with `latentwire encode`") from None


def _unpack(path: Path, data: bytes, encoder: bytes | None = None):
    from latentwire.packets import Packet

    try:
        return Packet.from_bytes(data, encoder=encoder)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
