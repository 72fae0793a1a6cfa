"""Retention at every ratio, all that was measured side by side: ``python benchmarks/ratios.py`` fills docs/results.md.

Nothing is measured here. The tables, one for each receiver, are made of the files under ``benchmarks/results`` and
stand between ``<!-- ratios:begin -->`` and ``<!-- ratios:end -->``; the test suite compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"
BLOCK = re.compile(r"(<!-- ratios:begin -->\n).*?(<!-- ratios:end -->)", re.DOTALL)
RATIOS = (2, 4, 8, 16, 32)
PAIR = ("llama", "qwen2")
"""Readers that the short runs of curves.json train together; another one is trained alone."""
MORE: dict[str, dict[str, Any]] = {
    "prompt mode, little training": {"mode": "prompt"},
    "two slots each, little training": {"slots": 2},
    "soft tokens, little training": {"injection": "soft-tokens"},
}
"""Lines of further short runs, and what differs in them."""
Row = dict[str, Any]

SHIPPED = ("sandbox-full.json", "sandbox-join.json", "sandbox-vectors.json")
"""All questions of squad/valid, context mode, one slot for each latent."""
NQ = ("nq-valid.json", "nq-valid-gpt2.json")
LINES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("**latents**, a K/V slot each", SHIPPED, "latents"),
    ("**latents**, slots for half of the text", ("sandbox-full-half.json",), "latents"),
    ("**latents**, prompt mode", ("sandbox-full-prompt.json", "sandbox-join-prompt.json"), "latents"),
    ("first M tokens, question kept", SHIPPED, "budget-question"),
    ("first tokens in the packet's bytes", SHIPPED, "same-bytes"),
    ("principal components of each embedding in the packet's bytes, all positions", SHIPPED, "pca"),
    ("means of embeddings over spans", SHIPPED, "mean-pooled"),
    ("control: another article's latents", SHIPPED, "wrong"),
    ("control: shuffled latents", SHIPPED, "shuffled"),
    ("control: zero latents", SHIPPED, "zero"),
    ("nq/valid: **latents**", NQ, "latents"),
    ("nq/valid: first M tokens", NQ, "budget-question"),
    ("nq/valid: another article's", NQ, "wrong"),
)
"""What a line is called, the files that may hold it, and its condition."""
VECTORS = ("same-bytes", "pca", "mean-pooled")
"""Conditions that are asked of fewer questions."""
PEERS = {"kvpress KVgrad": "kvpress KVgrad", "kvpress KVzip+": "kvpress KVzip+", "llmlingua": "LLMLingua"}


def loaded(name: str) -> Any:
    """A results file, or None where it is not there."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def cell(row: Row | None) -> str:
    """F1 and, in brackets, retention."""
    if row is None or row.get("f1") is None:
        return ""
    kept = row.get("retention")
    return f"{row['f1']:.3f}" + ("" if kept is None else f" ({round(kept, 2) + 0.0:.2f})")


def measured(receiver: str) -> Iterator[tuple[str, list[str]]]:
    """Lines of the shipped wire, and of what stands beside it on the same questions."""
    for title, files, condition in LINES:
        rows: dict[int, Row] = {}
        for name in files:
            for row in (loaded(name) or {"rows": []})["rows"]:
                at_most = row["bits"] in (None, 16)
                if row["receiver"] == receiver and row["condition"] == condition and at_most and not row["na"]:
                    rows.setdefault(row["ratio"], row)
        few = f" ({max(row['n'] for row in rows.values()):,} questions)" if rows and condition in VECTORS else ""
        yield title + few, [cell(rows.get(ratio)) for ratio in RATIOS]


def short_runs(receiver: str) -> Iterator[tuple[str, list[str]]]:
    """Wires of a small equal budget, one for each ratio, and soft tokens beside K/V."""
    curves = loaded("curves.json")
    if curves:
        middle = next((run["setting"] for run in curves["runs"] if run["name"] == "middle"), {})
        if receiver not in PAIR:
            middle = {**middle, "links": receiver}
        along = {
            run["setting"]["ratio"]: row
            for run in curves["runs"] for row in run["rows"]
            if row["receiver"] == receiver and {**run["setting"], "ratio": 0} == {**middle, "ratio": 0}
        }  # fmt: skip
        yield "a wire for each ratio, little training", [cell(along.get(ratio)) for ratio in RATIOS]
        spans = [seeds(curves["runs"], {**middle, "ratio": ratio}, receiver) for ratio in RATIOS]
        yield "the same from three seeds, least and most kept", spans
        for words, change in MORE.items():
            found = {
                run["setting"]["ratio"]: row
                for run in curves["runs"] for row in run["rows"]
                if row["receiver"] == receiver and {**run["setting"], "ratio": 0} == {**middle, **change, "ratio": 0}
            }  # fmt: skip
            yield words, [cell(found.get(ratio)) for ratio in RATIOS]
    methods = loaded("methods.json")
    for injection, words in (("kv-prefix", "K/V"), ("soft-tokens", "soft tokens")) if methods else ():
        row = next(
            (
                row for run in methods["runs"] for row in run["rows"]
                if (run["encoder"], run["injection"], row["receiver"]) == ("lm", injection, receiver)
            ),
            None,
        )  # fmt: skip
        yield f"{words}, little training", [cell(row) if ratio == methods["ratio"] else "" for ratio in RATIOS]


def seeds(runs: list[Row], setting: Row, receiver: str) -> str:
    """The least and the most that runs of this setting keep, if there are several."""
    kept = [
        row["retention"] for run in runs for row in run["rows"]
        if row["receiver"] == receiver and {**run["setting"], "seed": 0} == {**setting, "seed": 0}
    ]  # fmt: skip
    return f"{min(kept):.2f}–{max(kept):.2f}" if len(kept) > 1 else ""


def peers(receiver: str) -> Iterator[tuple[str, list[str]]]:
    """Published compression, on 200 of the questions."""
    found = loaded("peers.json")
    for key, words in PEERS.items() if found else ():
        rows = {r["ratio"]: r for r in found["rows"] if r["receiver"] == receiver and r["condition"] == key}
        yield f"{words} ({found['n']} questions)", [cell(rows.get(ratio)) for ratio in RATIOS]


PARTS: tuple[Callable[[str], Iterator[tuple[str, list[str]]]], ...] = (measured, short_runs, peers)


def table(receiver: str) -> str:
    """Markdown: a line for each way of giving the context that has a figure, a column for each ratio."""
    head = [f"`{receiver}`", *(f"{ratio}×" for ratio in RATIOS)]
    lines = [head, ["---", *["---:"] * len(RATIOS)]]
    lines += [[title, *cells] for part in PARTS for title, cells in part(receiver) if any(cells)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tables() -> str:
    """All receivers, each headed by what it answers from the text and from nothing."""
    text = []
    for name in ("sandbox-full.json", "sandbox-join.json"):
        rows = loaded(name)["rows"]
        for receiver in dict.fromkeys(row["receiver"] for row in rows):
            own = {row["condition"]: row for row in rows if row["receiver"] == receiver}
            full, none = (own[key]["f1"] for key in ("text", "none"))
            text.append(
                f"F1 of `{receiver}` from the full text {full:.3f}, from nothing {none:.3f}.\n\n{table(receiver)}"
            )
    return "\n".join(text)


def fill(page: str) -> str:
    """The page with its tables made anew."""
    return BLOCK.sub(lambda match: match[1] + tables() + match[2], page)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
