"""``encode``, ``generate`` and ``ask``: packets by hand (what is in one says ``inspect``)."""

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
    open_packet,
    open_wire,
    read_text,
)
from latentwire.errors import UserError

TextFile = Annotated[Path, typer.Argument(metavar="FILE", help="A text file; - for stdin.")]
Bits = Annotated[int, typer.Option(help="Bits per value: 16, 8, 6 or 4.")]
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
    size = packet.save(output, bits=bits)
    typer.echo(
        f"{output}: {len(packet.z_MD)} latents for {packet.source_tokens} tokens, "
        f"{size} bytes for {len(text.encode())} bytes of text"
    )


def generate(
    wire: WireArgument,
    packet: Annotated[Path, typer.Option(metavar="PACKET", help="A packet that `latentwire encode` wrote.")],
    receiver: Annotated[str, typer.Option("--receiver", "-r", metavar="R", help="Who reads the packet.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="What to ask; may be given several times. Not needed where the packet holds the question."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 32,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token each time.")] = 0.0,
    seed: Annotated[int, typer.Option(help="For temperatures above 0.")] = 0,
    slots: Annotated[
        int | None, typer.Option(min=1, help="K/V positions for each latent; what the link gives first if left out.")
    ] = None,
) -> None:
    """Let a receiver read a packet and answer, one line for each prompt."""
    received = open_packet(packet)
    if received.mode == "context" and not prompt:
        raise UserError(f"{packet} holds a text without a question; ask one with --prompt")
    opened = open_wire(wire)
    reading = opened.receiver(chosen_receivers(opened, [receiver])[0])
    answers = reading.generate(
        received,
        list(prompt or [""]),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        slots=slots,
    )
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
