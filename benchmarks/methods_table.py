"""The table of all methods in docs/methods.md, made from ``benchmarks/results/methods.json``.

It stands between two comments, the first of which names its file; ``python benchmarks/methods.py --table`` rewrites it,
and the test suite compares::

    <!-- methods:begin methods.json -->
    <!-- methods:end -->
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
BLOCK = re.compile(
    r"(<!-- methods:begin (?P<file>[\w.-]+) -->\n)(?P<table>.*?)(?P<end><!-- methods:end -->)", re.DOTALL
)


def table(found: dict[str, Any]) -> str:
    """A Markdown table of all runs, the best first, those that failed last."""
    receivers = list(dict.fromkeys(row["receiver"] for run in found["runs"] for row in run["rows"]))
    head = ["encoder", "injection", "steps", "parameters", "K/V"]
    head += [cell for name in receivers for cell in (f"`{name}` F1 (95 %)", "retention")]
    out = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for condition, words in (("text", "full text"), ("none", "no context")):
        rows = {row["receiver"]: row for row in found["references"] if row["condition"] == condition}
        out.append([words, "", "", "", "", *(cell for name in receivers for cell in scores(rows.get(name)))])
    for run in sorted(found["runs"], key=lambda run: -sum(row["f1"] for row in run["rows"])):
        rows = {row["receiver"]: row for row in run["rows"]}
        size = f"{sum(run['parameters'].values()) / 1e6:.1f} M"
        held = f"{run['rows'][0]['kv_positions']:.1f}"
        own = [cell for name in receivers for cell in scores(rows.get(name))]
        out.append([f"`{run['encoder']}`", f"`{run['injection']}`", f"{run['steps']:,}", size, held, *own])
    for name, why in found["failed"].items():
        encoder, _, injection = name.partition("+")
        out.append([f"`{encoder}`", f"`{injection}`", f"failed: {why}", *[""] * (len(head) - 3)])
    asked = " or ".join(f"{n:,}" for n in found["n"]) or "no"
    lasting = f"{found['budget']['minutes']} minutes" if found["budget"]["minutes"] else "the same steps"
    note = f"{asked} questions kept aside, {found['ratio']}×, {lasting} each, seed {found['seed']}, "
    return "\n".join("| " + " | ".join(row) + " |" for row in out) + f"\n\n{note}{', '.join(found['device'])}.\n"


def scores(row: dict[str, Any] | None) -> tuple[str, str]:
    if row is None:
        return "", ""
    kept = row.get("retention")
    low, high = row["f1_ci"]
    return f"{row['f1']:.3f} ({low:.3f}–{high:.3f})", "" if kept is None else f"{kept:.2f}"


def fill(markdown: str, results: Path = RESULTS) -> str:
    """A document with its table of methods made anew; one whose file is not there yet says so."""

    def made(match: re.Match[str]) -> str:
        path = results / match["file"]
        text = table(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else "Not measured yet.\n"
        return match[1] + text + match["end"]

    return BLOCK.sub(made, markdown)
