"""``encode``, ``generate`` and ``ask``: packets by hand (what is in one says ``inspect``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentwire.commands.options import (
    DeviceOption,
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

if TYPE_CHECKING:
    from latentwire.packets.store import Store
    from latentwire.wire import Wire

Bits = Annotated[int, typer.Option(help="Bits per value: 16, 8, 6 or 4.")]
BITS = 8
"""Of a value, where nothing is said."""
Questions = Annotated[list[str], typer.Option("--question", "-q", help="A question; may be given several times.")]


def encode(
    wire: WireArgument,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A text file; - for stdin. With --store also .jsonl, a text each line."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PACKET", help="The packet to write.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A folder of packets to add to, in place of --output; see `latentwire store`."
        ),
    ] = None,
    ratio: RatioOption = None,
    bits: Annotated[
        int | None, typer.Option(help=f"Bits per value: 16, 8, 6 or 4; {BITS} if neither these nor codes are given.")
    ] = None,
    codes: Annotated[
        int | None, typer.Option(metavar="N", help="Learned codes per latent, a byte each, of a wire that has them.")
    ] = None,
    question: Annotated[
        str | None, typer.Option("--question", "-q", help="Encode it too: the packet then answers this one alone.")
    ] = None,
    questions: Annotated[
        bool, typer.Option("--questions", help="With .jsonl: encode each row's question behind its text.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="With .jsonl: texts encoded at a time.")] = 64,
    least: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Let each receiver read the text back; exit code 1 where one finds a smaller share of its tokens.",
        ),
    ] = 0.0,
) -> None:
    """Encode a text file into a packet that every receiver of the wire can read, or many texts into a store.

    Rows of a .jsonl file have `text` (or `context`) and perhaps `id`; .gz, .xz and .zst are unpacked. What the store
    has already is passed over, so a run that was stopped goes on. Several processes share the work under torchrun or
    accelerate launch: each encodes batches of its own.
    """
    if (output is None) == (store is None):
        raise UserError("give --output for one packet, or --store for a folder of packets")
    if bits is not None and codes is not None:
        raise UserError("--bits is for values, --codes for learned codes in their place; give one of the two")
    bits = BITS if bits is None else bits
    from latentwire.data.texts import is_jsonl

    if least and (output is None or question is not None):
        raise UserError("--least is for one packet of a text without its question, with --output")
    rows = store is not None and is_jsonl(file)
    if questions and not rows:
        raise UserError("--questions is for rows of a .jsonl file with --store; one question is given with --question")
    if rows and question is not None:
        raise UserError("--question is for one text; --questions encodes the question that each row has")
    if store is not None and rows:
        _encode_rows(wire, file, store, ratio, bits, codes, questions, batch_size)
        return
    text = read_text(file)
    opened = open_wire(wire)
    per_latent, asked = chosen_ratio(opened, ratio, codes is not None), [question] if question else None
    if store is not None:
        _encode_into(opened, file, text, store, per_latent, bits, codes, question)
        return
    assert output is not None
    packet = opened.encode([text], ratio=per_latent, questions=asked, codes=codes)[0]
    size = packet.save(output, bits=bits)
    typer.echo(
        f"{output}: {len(packet.z_MD)} latents for {packet.source_tokens} tokens, "
        f"{size} bytes for {len(text.encode())} bytes of text"
    )
    if least:
        _tell_what_is_lost(opened, output, text, least)


def _tell_what_is_lost(wire: Wire, path: Path, text: str, least: float) -> None:
    """What each receiver reads back from the packet as it was written. Exit code 1: one is below ``least``."""
    from latentwire.readback import retell

    packet, low = open_packet(path), []
    for name in wire.receivers:
        told = retell(wire, name, [packet], [text])[0]
        typer.echo(f"{name} reads back {told.right:.0%} of {told.tokens} tokens")
        low += [name] if told.right < least else []
    if low:
        typer.echo(
            f"warning: {' and '.join(low)} below {least:.0%}; send this text as text, or at a lower ratio", err=True
        )
        raise typer.Exit(1)


def _encode_into(
    wire: Wire, file: Path, text: str, where: Path, ratio: int, bits: int, codes: int | None, question: str | None
) -> None:
    """One text into a store."""
    from latentwire.packets.key import key_of
    from latentwire.packets.store import Store

    if codes is not None:
        wire.books.stages(codes)
    key = key_of(text, ratio, bits if codes is None else codes, wire.made_by(codes is not None), question)
    with Store.open(where, write=True) as store:
        _tell_lost(store)
        if key in store:
            typer.echo(f"{where}: it has this packet already, {key.hex()[:12]}")
            return
        asked = None if question is None else [question]
        packet = wire.encode([text], ratio=ratio, questions=asked, codes=codes)[0]
        store.append(key, packet, bits, "" if str(file) == "-" else file.name)
    typer.echo(f"{where}: {key.hex()[:12]}, {len(packet.z_MD)} latents for {packet.source_tokens} tokens, "
               f"{packet.size(bits)} bytes for {len(text.encode())} bytes of text")  # fmt: skip


def _encode_rows(
    wire: str,
    file: Path,
    where: Path,
    ratio: int | None,
    bits: int,
    codes: int | None,
    questions: bool,
    batch_size: int,
) -> None:
    """Rows of a file into a store."""
    from latentwire.bulk import encode_rows, place
    from latentwire.codecs import by_bits
    from latentwire.packets.store import Store

    by_bits(bits)
    rank, world = place()
    # an encoder needs no receivers; the words around a question are theirs
    opened = open_wire(wire, receivers=None if questions else [])
    import torch

    if torch.cuda.is_available():
        opened.place(f"cuda:{int(os.environ.get('LOCAL_RANK', rank)) % torch.cuda.device_count()}")
    chosen = chosen_ratio(opened, ratio, codes is not None)
    if codes is not None:  # before a store is made for nothing
        opened.books.stages(codes)
    with Store.open(where, write=True, writer=str(rank)) as store:
        _tell_lost(store)
        done = encode_rows(opened, file, store, chosen, bits, questions, batch_size, rank, world, codes)
    process = f"process {rank + 1} of {world}: " if world > 1 else ""
    share = f"{done.mine:,} texts of " if world > 1 else ""
    typer.echo(
        f"{where}: {process}{share}{done.rows:,} rows, {done.written:,} packets written ({done.nbytes:,} bytes), "
        f"{done.before:,} were there before, {done.again:,} texts came again; {done.seconds:,.1f} s"
    )


def _tell_lost(store: Store) -> None:
    for lost in store.lost:
        typer.echo(f"lost: {lost}", err=True)


def generate(
    wire: WireArgument,
    packet: Annotated[
        list[Path],
        typer.Option(
            metavar="PACKET", help="A packet that `latentwire encode` wrote; several are read behind one another."
        ),
    ],
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
    best: Annotated[
        int | None,
        typer.Option(min=1, help="Of several packets, read only so many: those that go best with the prompt."),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Let a receiver read a packet and answer, one line for each prompt."""
    received = [open_packet(each) for each in packet]
    if received[0].mode == "context" and not prompt:
        raise UserError(f"{packet[0]} holds a text without a question; ask one with --prompt")
    opened = open_wire(wire, device=device)
    reading = opened.receiver(chosen_receivers(opened, [receiver])[0])
    answers = reading.generate(
        [received], list(prompt or [""]), max_new_tokens, temperature, seed, slots, best
    )  # fmt: skip
    for answer in answers:
        typer.echo(answer)


def ask(
    wire: WireArgument,
    text: Annotated[Path, typer.Option(metavar="FILE", help="A text file; - for stdin.")],
    question: Questions,
    receiver: ReceiversOption = None,
    ratio: RatioOption = None,
    bits: Bits = BITS,
    device: DeviceOption = "auto",
) -> None:
    """Ask questions about a text: each receiver answers from the text and from the packet, side by side."""
    context = read_text(text)
    opened = open_wire(wire, device=device)
    names = chosen_receivers(opened, receiver)
    from rich.console import Console

    from latentwire.sandbox.demo import Passage, show_passage

    passage = Passage(str(text), context, [(each, ()) for each in question])
    show_passage(Console(), opened, passage, chosen_ratio(opened, ratio), bits=bits, receivers=names)
