"""Fill the measured tables in README and docs from the files under ``benchmarks/results``.

No figure is typed by hand: a table stands between two comments, the first of which names its file::

    <!-- results:begin sandbox-full.json -->
    <!-- results:end -->

A receiver's name behind the file's leaves only its own rows, with and without the full text (for the reader's card).

``python benchmarks/readme_table.py`` rewrites what stands between them, ``--check`` only says what is out of date (the
test suite runs it so). Each file is the ``results.json`` of one ``latentwire eval``, copied as it is.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(
    r"(<!-- results:begin (?P<file>[\w./-]+)(?: (?P<reader>[\w-]+))? -->\n)(?P<table>.*?)(?P<end><!-- results:end -->)",
    re.DOTALL,
)
NAMES = {
    "text": "full text",
    "none": "no context",
    "budget": "first M tokens of the prompt",
    "budget-question": "first M tokens, question kept",
    "same-bytes": "text cut to the packet's bytes",
    "latents": "**latents**",
    "zero": "control: zero latents",
    "shuffled": "control: shuffled latents",
    "wrong": "control: another article's latents",
}


def table(results: dict) -> str:
    """A Markdown table: one line per way of giving the context, one group of columns per receiver."""
    rows = results["rows"]
    receivers = list(dict.fromkeys(row["receiver"] for row in rows))
    cells = {(*_line(row), row["receiver"]): row for row in rows}
    lines = sorted(dict.fromkeys(_line(row) for row in rows), key=_order)
    head = ["given", "ratio", "bits", "bytes"]
    for receiver in receivers:
        head += [f"`{receiver}` F1 (95 %)", "EM", "retention", "K/V"]
    out = [_row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    for condition, ratio, bits in lines:
        found = [cells.get((condition, ratio, bits, receiver)) for receiver in receivers]
        size = next((row["bytes"] for row in found if row), None)
        line = [NAMES.get(condition, condition), f"{ratio}×" if ratio else "", str(bits or ""), _number(size, 0)]
        for row in found:
            line += _scores(row) if row else [""] * 4
        out.append(_row(line))
    return "\n".join([*out, "", _origin(results)]) + "\n"


def fill(markdown: str, results: Path = RESULTS) -> str:
    """The document with every table made anew; one whose file is not there yet says so."""

    def made(match: re.Match[str]) -> str:
        path = results / match["file"]
        if not path.is_file():
            return f"{match[1]}Not measured yet.\n{match['end']}"
        found = json.loads(path.read_text(encoding="utf-8"))
        if reader := match["reader"]:
            mine = [row for row in found["rows"] if row["receiver"] == reader and row["condition"] in ("text", "none")]
            found = {**found, "rows": mine}
        return match[1] + table(found) + match["end"]

    return BLOCK.sub(made, markdown)


def documents() -> Iterator[Path]:
    """README, docs and cards: where tables may stand."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "src" / "latentwire" / "sandbox").rglob("README.md"))
    yield from sorted((ROOT / "docs").rglob("*.md"))


def _line(row: dict) -> tuple[str, int | None, int | None]:
    return row["condition"], row.get("ratio"), row.get("bits")


def _order(line: tuple[str, int | None, int | None]) -> tuple[int, int, int]:
    condition, ratio, bits = line
    known = list(NAMES)
    place = known.index(condition) if condition in known else len(known)
    # without a ratio first (text, none), then ratio by ratio
    return ratio or 0, place, -(bits or 0)


def _scores(row: dict) -> list[str]:
    if row.get("f1") is None:
        return ["n/a", "", "", ""]
    low, high = row["f1_ci"]
    f1 = f"{row['f1']:.3f} ({low:.3f}–{high:.3f})"
    return [f1, _number(row.get("em"), 3), _number(row.get("retention"), 2), _number(row.get("kv_positions"), 1)]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _origin(results: dict) -> str:
    counts = sorted({row["n"] for row in results["rows"]})
    questions = " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1])))
    encoder = results["wire"]["encoder"]
    return f"{questions} questions, {results['mode']} mode, seed {results['seed']}, encoder `{encoder}`."


def main(argv: list[str]) -> int:
    """Rewrite the tables, or with ``--check`` only say which documents are out of date (exit code 1)."""
    stale = []
    for path in documents():
        before = path.read_text(encoding="utf-8")
        after = fill(before)
        if after != before:
            stale.append(path.relative_to(ROOT))
            if "--check" not in argv:
                path.write_text(after, encoding="utf-8")
    for path in stale:
        print(
            f"{path}: " + ("out of date; run python benchmarks/readme_table.py" if "--check" in argv else "rewritten")
        )
    return int(bool(stale) and "--check" in argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
