"""The table of ``embedding_transforms.py`` in docs/experiments.md; the test suite compares it with the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "embedding-transforms.json", ROOT / "docs" / "experiments.md"
BLOCK = re.compile(r"(<!-- embedding-transforms:begin -->\n).*?(<!-- embedding-transforms:end -->)", re.DOTALL)
NAMES = {"text": "full text", "none": "no context", "replay-anchor": "its own embeddings"}
FAMILIES = {
    "scale": "times {}",
    "statistics": "channels standardised: {}",
    "nearest": "mean of the {} nearest tokens",
    "anchor": "nearest other token, {}",
    "codebook": "codebook of {}",
}


def table(found: dict[str, Any]) -> str:
    """A line for each change: F1, retention and how far vectors were moved, by receiver."""
    rows = {(row["receiver"], row["family"], row["change"]): row for row in found["rows"]}
    receivers = list(dict.fromkeys(row["receiver"] for row in found["rows"]))
    lines = [["context given as"], ["---"]]
    for name in receivers:
        lines[0] += [f"`{name}` F1 (95 %)", "retention", "cosine", "error"]
        lines[1] += ["---:"] * 4
    for family, change in dict.fromkeys((row["family"], row["change"]) for row in found["rows"]):
        line = [NAMES[change] if not family else FAMILIES[family].format(change.removeprefix("×"))]
        for name in receivers:
            line += cells(rows.get((name, family, change)))
        lines.append(line)
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{body}\n{found['data']['n']:,} questions, seed {found['seed']}, {found['device']}.\n"


def cells(row: dict[str, Any] | None) -> list[str]:
    """One receiver's figures; empty where it was not asked."""
    if row is None:
        return [""] * 4
    low, high = row["f1_ci"]
    rest = ["" if row[key] is None else f"{row[key]:.2f}" for key in ("retention", "cosine", "error")]
    return [f"{row['f1']:.3f} ({low:.3f}–{high:.3f})", *rest]


def fill(page: str, found: dict[str, Any]) -> str:
    """The page with its table made anew."""
    return BLOCK.sub(lambda match: match[1] + table(found) + match[2], page)
