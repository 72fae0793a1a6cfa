"""``latentwire data prepare``: the files that training reads, from what anyone can get."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def prepare(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the files go (LATENTWIRE_DATA).")],
    squad: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="SQuAD v1.1 JSON (train and dev); may be given several times."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|NAME",
            help="A folder of plain text, or a `datasets` set such as wikimedia/wikipedia:20231101.en.",
        ),
    ] = None,
    articles: Annotated[int | None, typer.Option(min=1, help="No more than so many articles of text.")] = None,
) -> None:
    """Make `squad/` and `text/` under a directory, the same files that the shipped weights were trained on."""
    from latentwire.data.prepare import prepare as run

    for line in run(out, squad=list(squad or ()), text=text, articles=articles):
        typer.echo(line)
