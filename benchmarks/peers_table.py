"""The table of peers in docs/results.md, made from ``benchmarks/results/peers.json``.

It stands between two comments, the first of which names its file; ``python benchmarks/peers.py --table`` rewrites it,
and the test suite compares::

    <!-- peers:begin peers.json -->
    <!-- peers:end -->
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
BLOCK = re.compile(r"(<!-- peers:begin (?P<file>[\w.-]+) -->\n)(?P<table>.*?)(?P<end><!-- peers:end -->)", re.DOTALL)
NAMES = {
    "text": "full text",
    "none": "no context",
    "latents": "**latents**",
    "budget-question": "first M tokens, question kept",
    "llmlingua": "LLMLingua",
    "llmlingua-aligned": "LLMLingua, a token's own surprise",
    "llmlingua-2": "LLMLingua-2",
}


def table(found: dict[str, Any]) -> str:
    """A Markdown table: one line per way of giving the context, those of one ratio together, then what failed."""
    rows = found["rows"]
    receivers = list(dict.fromkeys(row["receiver"] for row in rows))
    cells = {(row["ratio"], row["condition"], row["receiver"]): row for row in rows}
    head = ["given", "ratio"]
    head += [cell for name in receivers for cell in (f"`{name}` F1 (95 %)", "less the latents'", "retention", "K/V")]
    out = [head, ["---"] + ["---:"] * (len(head) - 1)]
    places = dict.fromkeys((row["ratio"], row["condition"]) for row in rows)
    for ratio, condition in sorted(places, key=lambda place: place[0] or 0):
        line = [NAMES.get(condition, condition), f"{ratio}×" if ratio else ""]
        for name in receivers:
            line += scores(cells.get((ratio, condition, name)))
        out.append(line)
    text = "\n".join("| " + " | ".join(row) + " |" for row in out)
    return "\n\n".join([text, *failures(found["failed"]), origin(found)]) + "\n"


def scores(row: dict[str, Any] | None) -> list[str]:
    """The four cells of a receiver; empty where there is no figure."""
    if row is None:
        return ["", "", "", ""]
    low, high = row["f1_ci"]
    # adding zero: a mean just below it would be -0.00
    kept = "" if row["retention"] is None else f"{round(row['retention'], 2) + 0.0:.2f}"
    apart = "" if row["over_latents"] is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*row["over_latents"])
    return [f"{row['f1']:.3f} ({low:.3f}–{high:.3f})", apart, kept, f"{row['kv_positions']:.1f}"]


def failures(failed: list[dict[str, Any]]) -> list[str]:
    """A line for each method that could not be measured, with its reason and where it was tried."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for row in failed:
        place = f"`{row['receiver']}`" + (f" at {row['ratio']}×" if row["ratio"] else "")
        by_reason.setdefault((row["condition"], row["why"]), []).append(place)
    return [
        f"{NAMES.get(condition, condition)}, tried on {', '.join(places)}, could not be measured: `{why}`"
        for (condition, why), places in by_reason.items()
    ]


def origin(found: dict[str, Any]) -> str:
    """Where the figures come from, and whether the text is read alike in the peers' environments."""
    packages = "; ".join(
        f"{name}: " + ", ".join(f"{package} {version}" for package, version in versions.items())
        for name, versions in found["peers"].items()
    )
    same = ", ".join(f"{row['same']} of {row['n']} (`{row['receiver']}`, {row['peer']})" for row in found["baselines"])
    return (
        f"{found['n']:,} questions, {found['mode']} mode, seed {found['seed']}, 16 bits, "
        f"encoder `{found['wire']['encoder']}`, {found['device']}. Environments: {packages}. "
        f"Answers from full text that are word for word those of this project's environment: {same}."
    )


def fill(markdown: str, results: Path = RESULTS) -> str:
    """A document with its table of peers made anew; one whose file is not there yet says so."""

    def made(match: re.Match[str]) -> str:
        path = results / match["file"]
        text = table(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else "Not measured yet.\n"
        return match[1] + text + match["end"]

    return BLOCK.sub(made, markdown)
