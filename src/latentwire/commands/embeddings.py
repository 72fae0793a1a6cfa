"""``latentwire embeddings WIRE``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

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


def embeddings(
    wire: WireArgument,
    receiver: ReceiversOption = None,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Paragraphs with empty lines between; some that come along if left out."),
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Paragraphs at most.")] = 64,
    ratio: RatioOption = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="K/V positions for each latent; what the link gives first if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, every figure of it.")] = False,
) -> None:
    """Show how what links inject lies beside what receivers know: lengths, nearest tokens, spread; keys and values by
    layer.
    """
    texts = None if text is None else [part for part in re.split(r"\n\s*\n", read_text(text)) if part.strip()][:n]
    opened = open_wire(wire)
    names, per_latent = chosen_receivers(opened, receiver), chosen_ratio(opened, ratio)
    from latentwire.conditions.vectors import sample
    from latentwire.readback.embeddings import diagnose

    texts = list(sample()[:n]) if texts is None else texts
    found: dict[str, Any] = {"encoder": opened.fingerprint.hex(), "texts": len(texts), "ratio": per_latent}
    found["receivers"] = [diagnose(opened, name, texts, per_latent, slots) for name in names]
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    from latentwire.commands.embeddings_page import print_page

    print_page(found)
