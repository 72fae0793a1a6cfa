"""Results as a table for the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from latentwire.evaluation.decoding import Decoding

COLUMNS = ("condition", "ratio", "bits", "F1", "95 %", "EM", "kept", "nll", "1st", "K/V", "bytes", "s")
DISPENSABLE = ("s", "1st", "nll", "EM", "bits", "95 %")
"""Columns that a narrow terminal does without, the first of them first."""
WIDE = 100


def print_table(results: dict[str, Any], console: Console | None = None) -> None:
    """One table a receiver: F1 with its interval, EM, retention of F1 (``kept``), nll per answer token, first token
    right, K/V positions of the context, bytes of packet or text, seconds in all."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDE)  # a file has no width of its own
    for receiver in dict.fromkeys(row["receiver"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["receiver"] == receiver]
        body = [cells(row) for row in rows]
        shown = columns_for(console.width, body)
        per = results.get("slots")
        slots = f" · {per} K/V a latent" if isinstance(per, int) else " · K/V for half the text" if per else ""
        gain = "" if results.get("gain", 1.0) == 1 else f" · gain {results['gain']:g}"
        title = (
            f"{receiver} · {results['mode']} mode · {rows[0]['n']:,} questions{slots}{gain} · seed {results['seed']}"
        )
        table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for place in shown:
            name = COLUMNS[place]
            table.add_column(name, justify="left" if name == "condition" else "right", no_wrap=True)
        for row, line in zip(rows, body, strict=True):
            style = "bold" if row["condition"] == "latents" else "dim" if row["na"] else None
            table.add_row(*[line[place] for place in shown], style=style)
        console.print(table)
    if other := Decoding(**results.get("decoding", {})).changed():
        console.print(f"Decoding: {', '.join(f'{name} {value}' for name, value in other.items())}.")
    for row in results["rows"]:
        if "oracle_f1" in row:
            at = " ".join(cell for cell in cells(row)[:3] if cell)
            console.print(
                f"{at}: all receivers answer alike on {100 * row['agreement']:.0f} % of the questions; an oracle that "
                f"knew the best of their answers would have F1 {share(row['oracle_f1'])} (no system)"
            )
    for why in dict.fromkeys(f"{row['condition']}: n/a, {row['na']}" for row in results["rows"] if row["na"]):
        console.print(f"[dim]{why}[/]")
    if cut := max((row["cut"] for row in results["rows"]), default=0):
        console.print(
            f"Up to {cut} of the texts were longer than a receiver's window and were cut (column cut in the file)."
        )


def columns_for(width: int, body: list[list[str]]) -> list[int]:
    """Places of the columns that fit into ``width``."""
    sizes = [max(len(name), *(len(line[place]) for line in body)) for place, name in enumerate(COLUMNS)]
    shown = list(range(len(COLUMNS)))
    for name in DISPENSABLE:
        if sum(sizes[place] + 2 for place in shown) <= width:
            break
        shown.remove(COLUMNS.index(name))
    return shown


def cells(row: dict[str, Any]) -> list[str]:
    """One row as strings, one for each of :data:`COLUMNS`; n/a where a condition does not apply."""
    start = [row["condition"], f"{row['ratio']}x" if row["ratio"] else "", str(row["bits"] or "")]
    if row["na"]:
        return [*start, "n/a", *[""] * (len(COLUMNS) - 4)]
    return [
        *start,
        share(row["f1"]),
        "-".join(share(end) for end in row["f1_ci"]),
        share(row["em"]),
        "" if row["retention"] is None else f"{100 * row['retention']:.0f} %",
        "" if row["nll"] is None else f"{row['nll']:.2f}",
        "" if row["first_token"] is None else share(row["first_token"])[:-1],
        f"{row['kv_positions']:.1f}",
        f"{row['bytes']:,.0f}",
        f"{sum(row['seconds'].values()):.1f}",
    ]


def share(value: float) -> str:
    """A number from 0 to 1 in four characters: ``.123``, ``1.00``."""
    return "1.00" if value >= 0.9995 else f"{value:.3f}"[1:]
