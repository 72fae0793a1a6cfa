"""What ``inspect`` found, for the eyes: the packet, the text read back from it, and a line for each latent."""

from __future__ import annotations

import difflib
import re
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 110
"""Columns where there is no terminal to have a width."""
FAR = 0.8
"""A word with less than this share of the first one's cosine is shown dim."""
LONGEST = 4000
"""Words of a text up to which its words are coloured: finding which are shared takes time."""


def print_page(
    title: str, found: dict[str, Any], source: str | None, rows: int, console: Console | None = None
) -> None:
    """Print what ``inspect --json`` would say. rows: lines of a table of latents at most; 0: all."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    readers: dict[str, dict[str, Any]] = found.get("receivers", {})
    table = Table(title=title, show_header=False, title_justify="left")
    for key, value in found.items():
        if key not in ("receivers", "source"):
            shown = ", ".join(f"{k} {v:.3g}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(key.replace("_", " "), shown)
    console.print(table)
    if (told := found.get("source")) and told["tokens"] != found["source_tokens"] and found["mode"] == "context":
        console.print(
            f"[yellow]{told['file']} has {told['tokens']} tokens, the packet stands for {found['source_tokens']}: "
            "it may be another text[/]"
        )
    for name, read in readers.items():
        _print_reader(console, name, read, source, rows)


def _print_reader(console: Console, name: str, read: dict[str, Any], source: str | None, rows: int) -> None:
    console.print()
    console.rule(f"[bold]{name}[/] reads back", align="left", style="cyan")
    console.print(coloured(read["readback"], source) if source else Text(read["readback"]))
    if scores := read.get("overlap"):
        console.print(
            f"[dim]overlap with the source: F1 of words [/][bold]{scores['f1']:.3f}[/][dim], words in the same order "
            f"(longest common subsequence) [/][bold]{scores['lcs']:.3f}[/][dim]; "
            "[/][green]green[/][dim] is in the source in this order[/]"
        )
    if told := read.get("retold"):
        console.print(
            f"[dim]word by word, each told those before it: [/][bold]{told['right']:.3f}[/][dim] of {told['tokens']} "
            f"tokens right, likelihood [/][bold]{told['likelihood']:.3f}[/]"
        )
    if note := read.get("note"):
        console.print(f"[dim]{note}[/]")
    if latents := read.get("latents"):
        console.print()
        console.print(_latents(name, latents[: rows or None], source is not None))
        if rows and len(latents) > rows:
            console.print(f"[dim]… and {len(latents) - rows} latents more (--rows 0 shows all)[/]")


def _latents(name: str, latents: list[dict[str, Any]], with_source: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("latent", justify="right", style="dim", no_wrap=True)
    table.add_column("norm", justify="right", no_wrap=True)
    table.add_column("strength", justify="right", no_wrap=True)
    if with_source:
        table.add_column("stands for (about)", max_width=40)
    table.add_column(f"nearest tokens of {name} (cosine of the first)")
    for each in latents:
        line: list[str | Text] = [str(each["latent"]), f"{each['norm']:.1f}", f"{each['strength']:.2f}"]
        if with_source:
            line.append(Text(" ".join(each["source"].split())))
        table.add_row(*line, _words(each["words"], each.get("source", "")))
    return table


def _words(near: list[dict[str, Any]], piece: str) -> Text:
    """Words in one line: the first bold, dim where they are far behind it, green where they stand in the source."""
    text = Text()
    for place, each in enumerate(near):
        style = "dim" if each["cosine"] < FAR * near[0]["cosine"] else "" if place else "bold"
        if len(each["word"]) > 1 and each["word"].lower() in piece.lower():
            style += " green"
        text.append("  " if place else "").append(each["word"], style.strip())
        if not place:
            text.append(f" {each['cosine']:.2f}", "dim")
    return text


def coloured(said: str, source: str) -> Text:
    """A text with the words green that the source has in the same order."""
    text = Text(said)
    places = list(re.finditer(r"\w+", said))
    a, b = [m.group().lower() for m in places], re.findall(r"\w+", source.lower())
    if len(a) + len(b) > LONGEST:
        return text
    for block in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks():
        for match in places[block.a : block.a + block.size]:
            text.stylize("green", *match.span())
    return text
