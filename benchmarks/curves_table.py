"""Lines through the curves of ``benchmarks/curves.py``, and their tables in docs/log.md.

The tables stand between two comments, the first of which names the file; ``python benchmarks/curves.py --table``
rewrites them, and the test suite compares::

    <!-- curves:begin curves.json -->
    <!-- curves:end -->
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"
FALLING = ("ratio",)
"""Curves along which retention falls: their lines are of what is kept, and more of them is not more compute."""
BLOCK = re.compile(r"(<!-- curves:begin (?P<file>[\w.-]+) -->\n)(?P<table>.*?)(?P<end><!-- curves:end -->)", re.DOTALL)


def fitted(
    runs: list[dict[str, Any]], curves: Mapping[str, tuple[float, ...]], middle: Mapping[str, float | str]
) -> list[dict[str, Any]]:
    """A line for each curve and receiver: log of the lost share (1 - retention) over log2 of the setting, or log of
    the kept share for ``FALLING``.

    doubled: how much of that share is left when the setting doubles. tenfold: retention that the line predicts for ten
    times the largest setting measured; none for ``FALLING``. rest: largest distance of a point from the line, in
    retention. A curve of fewer than three points has no line.
    """
    lines = []
    for curve in curves:
        falling = curve in FALLING
        along = [run for run in runs if {**run["setting"], curve: 0} == {**middle, curve: 0}]
        for name in dict.fromkeys(row["receiver"] for run in along for row in run["rows"]):
            pairs = [
                (run["setting"][curve], row["retention"]) for run in along for row in run["rows"]
                if row["receiver"] == name and row["retention"] is not None and 0 < row["retention"] < 1
            ]  # fmt: skip
            if len(pairs) < 3:
                continue
            x, kept = np.array(sorted(pairs), dtype=float).T
            slope, start = np.polyfit(np.log2(x), np.log(kept if falling else 1 - kept), 1)
            shares = np.exp(start + slope * np.log2(x))
            line = shares if falling else 1 - shares
            tenfold = None if falling else round(1 - math.exp(start + slope * math.log2(10 * x[-1])), 4)
            lines.append(
                {
                    "curve": curve,
                    "receiver": name,
                    "points": [[float(a), round(float(b), 4)] for a, b in zip(x, kept, strict=True)],
                    "share": "kept" if falling else "lost",
                    "doubled": round(math.exp(slope), 4),
                    "tenfold": tenfold,
                    "rest": round(float(np.abs(line - kept).max()), 4),
                }
            )
    return lines


def table(found: dict[str, Any]) -> str:
    """Markdown: all runs, then the lines."""
    names = list(dict.fromkeys(row["receiver"] for run in found["runs"] for row in run["rows"]))
    out = [["run", "steps", "minutes", *(cell for name in names for cell in (f"`{name}` F1 (95 %)", "retention"))]]
    out.append(["---", *["---:"] * (len(out[0]) - 1)])
    for run in sorted(found["runs"], key=_place):
        rows = {row["receiver"]: row for row in run["rows"]}
        cells = [cell for name in names for cell in _scores(rows.get(name))]
        out.append([run["name"], f"{run['steps']:,}", f"{run['seconds'] / 60:.1f}", *cells])
    out += [[name, f"failed: {why}", *[""] * (2 * len(names) + 1)] for name, why in found["failed"].items()]
    lines = [["curve", "receiver", "when doubled, is left", "retention at ten times the last", "off the line by"]]
    lines.append(["---", "---", "---:", "---:", "---:"])
    for line in found["lines"]:
        tenfold = "" if line["tenfold"] is None else f"{line['tenfold']:.2f}"
        left = f"{line['doubled']:.2f} of what is {line['share']}"
        lines.append([line["curve"], f"`{line['receiver']}`", left, tenfold, f"{line['rest']:.2f}"])
    budget = found["budget"]
    note = (
        f"{' or '.join(f'{n:,}' for n in found['n'])} questions kept aside, seed {found['seed']}; `middle`: "
        f"{budget['steps']:,} steps of {budget['passages']} passages, {budget['windows']:,} windows and "
        f"{budget['made']:,} passages with made questions, d_z 512, 8×, one slot; {', '.join(found['device'])}."
    )
    tables = ["\n".join("| " + " | ".join(row) + " |" for row in rows) for rows in (out, lines)]
    return "\n\n".join([*tables, note]) + "\n"


def _place(run: dict[str, Any]) -> tuple[str, float]:
    """The middle first, then each curve upwards, then the rest by name."""
    curve, _, value = run["name"].rpartition("-")
    try:
        return (curve, float(value)) if run["name"] != "middle" else ("", 0.0)
    except ValueError:
        return "~" + run["name"], 0.0


def _scores(row: dict[str, Any] | None) -> tuple[str, str]:
    if row is None:
        return "", ""
    low, high = row["f1_ci"]
    return f"{row['f1']:.3f} ({low:.3f}–{high:.3f})", "" if row["retention"] is None else f"{row['retention']:.2f}"


def fill(markdown: str, results: Path = RESULTS) -> str:
    """A document with its tables made anew; one whose file is not there yet says so."""

    def made(match: re.Match[str]) -> str:
        path = results / match["file"]
        text = table(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else "Not measured yet.\n"
        return f"{match[1]}{text}{match['end']}"

    return BLOCK.sub(made, markdown)
