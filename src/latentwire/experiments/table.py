"""A sweep's runs as a table for the terminal, the best first."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latentwire.evaluation.table import WIDE, share
from latentwire.experiments.grid import shortened, told

STYLES = {"improved": "green", "degraded": "yellow", "collapsed": "red", "stable": None}


def print_runs(results: dict[str, Any], console: Console | None = None) -> None:
    """Score with its interval, verdict if there is a base run, F1 of each receiver if there are several, steps, seconds
    of training, what the collapse watch still saw; failed runs behind them."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDE)  # a file has no width of its own
    runs = results["runs"]
    judged = any(run["verdict"] for run in runs)
    names = list(dict.fromkeys(row["receiver"] for run in runs for row in run["rows"]))
    apart = names if len(names) > 1 else []
    short = shortened(list(dict.fromkeys(key for run in runs for key in run["overrides"])))
    metric = results["rank"]["metric"]
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("run", no_wrap=True)
    table.add_column("changed")
    for name in (metric, "95 %", *apart):
        table.add_column(name, justify="right", no_wrap=True)
    if judged:
        table.add_column("verdict", no_wrap=True)
    for name in ("steps", "s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("watch")
    for run in runs:
        style = "bold" if run["hash"] == results["baseline"] else STYLES.get(run["verdict"] or "")
        by = [_mean([row["f1"] for row in run["rows"] if _ranked(row, name, results)]) for name in apart]
        table.add_row(
            run["hash"],
            escape(told(run["overrides"], short)),
            *_score(run["score"]),
            *["–" if value is None else share(value) for value in by],
            *([run["verdict"] or ""] if judged else []),
            f"{run['steps']:,}",
            f"{run['seconds']['train']:.0f}",
            "stopped" if run["stopped"] else escape(_ended(run["ended"])),
            style=style,
        )
    console.print(table)
    for name, why in results["failed"].items():
        console.print(f"[red]{name} failed:[/] {escape(why)}")
    for name in results["elsewhere"]:
        console.print(f"[dim]{name} is being run by another process; the same command shows it later[/]")


def _score(score: dict[str, Any]) -> tuple[str, str]:
    if score["value"] is None:
        return "–", ""
    shown = f"{score['value']:.2f}" if score["metric"] in ("nll", "retention") else share(score["value"])
    return shown, "-".join(share(end) for end in score["interval"] or ())


def _ranked(row: dict[str, Any], name: str, results: dict[str, Any]) -> bool:
    return row["receiver"] == name and row["condition"] == results["rank"]["condition"] and row["f1"] is not None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _ended(ended: dict[str, list[str]]) -> str:
    return "; ".join(f"{receiver}: {', '.join(events)}" for receiver, events in ended.items())
