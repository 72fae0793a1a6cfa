"""Results as a table for the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("condition", "ratio", "bits", "F1", "95 %", "EM", "kept", "nll", "1st", "K/V", "bytes", "s")


def print_table(results: dict[str, Any], console: Console | None = None) -> None:
    """One table a receiver: score, interval, retention, cost. ``kept`` is retention of F1; ``s`` seconds in all."""
    console = console or Console()
    for receiver in dict.fromkeys(row["receiver"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["receiver"] == receiver]
        title = f"{receiver} · {results['mode']} mode · n = {rows[0]['n']} · seed {results['seed']}"
        table = Table(title=title, title_justify="left", header_style="bold")
        for name in COLUMNS:
            table.add_column(name, justify="left" if name == "condition" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*cells(row), style="bold" if row["condition"] == "latents" else None)
        console.print(table)
    if cut := sum(row["cut"] for row in results["rows"]):
        console.print(f"{cut} texts were longer than a receiver's window and were cut in text conditions.")


def cells(row: dict[str, Any]) -> list[str]:
    """One row as strings; n/a where a condition does not apply."""

    def number(value: float | None, digits: int = 3) -> str:
        return "n/a" if value is None else f"{value:.{digits}f}".replace("0.", ".", 1) if digits == 3 else f"{value:.{digits}f}"

    low_high = "" if row["f1_ci"] is None else f"{number(row['f1_ci'][0])}-{number(row['f1_ci'][1])}"
    return [
        row["condition"],
        f"{row['ratio']}x" if row["ratio"] else "",
        str(row["bits"] or ""),
        number(row["f1"]),
        low_high,
        number(row["em"]),
        "" if row["retention"] is None else f"{100 * row['retention']:.0f} %",
        number(row["nll"], 2),
        number(row["first_token"], 2),
        number(row["kv_positions"], 1),
        f"{row['bytes']:,.0f}",
        f"{sum(row['seconds'].values()):.1f}",
    ]
