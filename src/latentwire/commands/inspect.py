"""``inspect``: what is in a packet, and with a wire what its receivers make of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentwire.commands.options import ReceiversOption, chosen_receivers, open_packet, open_wire, read_text
from latentwire.errors import UserError

if TYPE_CHECKING:
    from latentwire.packets import Packet
    from latentwire.wire import Wire


def inspect(
    packet: Annotated[Path, typer.Argument(metavar="PACKET", help="A packet that `latentwire encode` wrote.")],
    wire: Annotated[
        str | None,
        typer.Option("--wire", "-w", metavar="W", help="The wire that made it (directory, hub id, `sandbox`)."),
    ] = None,
    receiver: ReceiversOption = None,
    source: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The text that was encoded, to compare with what is read back; - for stdin."),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="K/V positions for each latent; what the link gives first if left out.")
    ] = None,
    words: Annotated[int, typer.Option(min=0, max=50, help="Nearest tokens for each latent; 0: none.")] = 5,
    rows: Annotated[int, typer.Option(min=0, help="Latents that the table shows at most; 0: all.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, all latents of it.")] = False,
) -> None:
    """Say what is in a packet. With --wire: what each receiver reads back from it, and which of its words lie nearest
    to each latent.
    """
    if wire is None and (given := [o for o, v in (("--receiver", receiver), ("--source", source)) if v]):
        raise UserError(f"{given[0]} needs the wire that made the packet; name it with --wire")
    unpacked = open_packet(packet)
    text = None if source is None else read_text(source)
    found: dict[str, Any] = unpacked.describe()
    if wire is not None:
        opened = open_wire(wire)
        names = chosen_receivers(opened, receiver)
        if text is not None:
            found["source"] = {"file": str(source), "tokens": _tokens(opened, text)}
        found["receivers"] = {name: _read(opened, name, unpacked, text, slots, words) for name in names}
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    from latentwire.commands.inspect_page import print_page

    print_page(str(packet), found, text, rows)


def _tokens(wire: Wire, text: str) -> int:
    """Tokens of a text as the wire's encoder counts them: what its packet says it stands for."""
    return int(wire.encoder.prepare([text]).arrays["count"].sum())


def _read(wire: Wire, name: str, packet: Packet, source: str | None, slots: int | None, k: int) -> dict[str, Any]:
    """What one receiver makes of the packet. note: why there are no words, where there are none."""
    from latentwire.readback import nearest_words, overlap, recite, retell

    said = recite(wire, name, [packet], slots)[0]
    found: dict[str, Any] = {"readback": said}
    if source is not None:
        common = overlap(said, source)
        found["overlap"] = {"f1": common.f1, "lcs": common.lcs}
        if packet.mode == "context":
            told = retell(wire, name, [packet], [source], slots)[0]
            found["retold"] = {"right": told.right, "likelihood": told.likelihood, "tokens": told.tokens}
    if not k:
        return found
    try:
        near = nearest_words(wire, name, packet, said or "text", k, slots)
    except UserError as error:
        return {**found, "latents": [], "note": str(error)}
    pieces = _pieces(wire, name, source, len(near))
    norm_M = wire.latents([packet]).z_BMD[0].norm(dim=-1).tolist()
    found["latents"] = [
        {
            "latent": each.latent,
            "norm": norm_M[each.latent],
            "strength": each.strength,
            "words": [{"word": word, "cosine": cosine} for word, cosine in each.words],
            **({} if piece is None else {"source": piece}),
        }
        for each, piece in zip(near, pieces, strict=True)
    ]
    return found


def _pieces(wire: Wire, name: str, source: str | None, count: int) -> list[str | None]:
    """The stretch of the source that each of ``count`` latents stands for, as near as equal shares of it tell."""
    if source is None:
        return [None] * count
    prompt = wire.get_receiver(name).prompt
    ids = prompt.context_ids([source])[0]
    edges = [round(len(ids) * i / count) for i in range(count + 1)]
    pieces = [ids[start:end] for start, end in itertools.pairwise(edges)]
    return [text.strip() for text in prompt.tokenizer.batch_decode(pieces)]
