"""What ``embeddings`` found, for the eyes: tables of vectors, keys and values for each receiver."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDE = 100
"""Columns where there is no terminal to have a width."""
FIRST = ("8", "64")
"""Of how many directions a layer's line has the share; JSON has one more."""
SHOWN = ("5 %", "50 %", "95 %")
"""Quantiles that the table has; JSON has more."""


def print_page(found: dict[str, Any], console: Console | None = None) -> None:
    """Print what ``embeddings --json`` would say, its medians and the outer of its quantiles."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    for read in found["receivers"]:
        about = f"{found['texts']} paragraphs, {found['ratio']}x"
        console.print(vectors(f"{read['receiver']} · input embeddings · {about}", read["embeddings"]))
        if soft := read["embeddings"].get("soft tokens"):
            words = ", ".join(f"{escape(word)} {100 * share:.0f} %" for word, share in soft["words"])
            console.print(f"[dim]soft tokens are nearest to:[/] {words}")
            console.print(f"[dim]their nearest token is somewhere in the texts:[/] {100 * soft['in_text']:.0f} %")
        for kind in ("keys", "values") if read["layers"] else ():
            console.print(by_layer(f"{read['receiver']} · {kind}, text / made · {about}", read["layers"], kind))
        if not read["layers"]:
            console.print("[dim]This link makes no positions, so there are no keys and values to compare.[/]")


def new(title: str, columns: list[str]) -> Table:
    """An empty table with figures to the right."""
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    return table


def vectors(title: str, rows: dict[str, dict[str, Any]]) -> Table:
    """Vocabulary, text, soft tokens."""
    firsts = list(next(iter(rows.values()))["first"])
    table = new(title, ["", "n", "norm, 5/50/95 %", "nearest, 5/50/95 %", "rank", f"first {'/'.join(firsts)}"])
    for name, row in rows.items():
        norm, near = (
            [form.format(row[key][q]) for q in SHOWN] for key, form in (("norm", "{:.3g}"), ("nearest", "{:.2f}"))
        )
        first = [f"{row['first'][k]:.2f}" for k in firsts]
        table.add_row(name, f"{row['n']:,}", "/".join(norm), "/".join(near), f"{row['rank']:.1f}", "/".join(first))
    return table


def by_layer(title: str, layers: list[dict[str, Any]], kind: str) -> Table:
    """A line for each layer: its keys, or its values."""
    table = new(title, ["layer", "norm, 50 %", "rank", *(f"first {k}" for k in FIRST), "spread", "apart"])
    for layer in layers:
        sides = [layer[kind]["text"], layer[kind]["made"]]
        line = [" / ".join(f"{side['norm']['50 %']:.3g}" for side in sides)]
        line += [" / ".join(f"{side['rank']:.0f}" for side in sides)]
        line += [" / ".join(f"{side['first'][k]:.2f}" for side in sides) for k in FIRST]
        table.add_row(str(layer["layer"]), *line, f"{layer[kind]['spread']:.2f}", f"{layer[kind]['apart']:.2f}")
    return table
