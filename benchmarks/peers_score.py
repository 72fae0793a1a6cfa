"""Answers of peers as rows of figures, by the same metrics as the wire's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentwire.types import Example

Row = dict[str, Any]
KEPT = ("receiver", "condition", "ratio", "n", "f1", "f1_ci", "em", "kv_positions")


def peer_rows(
    peer: str,
    receiver: str,
    found: dict[tuple[str, int | None], list[Row]],
    examples: Sequence[Example],
    seed: int,
    said: Sequence[Row] = (),
) -> list[Row]:
    """A row for each method and ratio. found: answers in the order of the examples. said: lines of
    ``predictions.jsonl``; with them a row has its distance from the latents."""
    from latentwire.evaluation.metrics import bootstrap_ci, exact_match, f1

    rows = []
    for (method, ratio), lines in found.items():
        pairs = [(line["prediction"], example.answers) for line, example in zip(lines, examples, strict=True)]
        each = [f1(said, answers) for said, answers in pairs]
        low, high = bootstrap_ci(each, seed)
        figures = {
            "n": len(each),
            "f1": round(sum(each) / len(each), 4),
            "f1_ci": [round(low, 4), round(high, 4)],
            "em": round(sum(exact_match(said, answers) for said, answers in pairs) / len(each), 4),
            "kv_positions": round(sum(line["positions"] for line in lines) / len(each), 2),
            "over_latents": over_latents(each, receiver, ratio, examples, said, seed),
        }
        rows.append({"peer": peer, "receiver": receiver, "condition": method, "ratio": ratio, **figures})
    return rows


def own_rows(rows: list[Row], examples: Sequence[Example], seed: int, said: Sequence[Row]) -> list[Row]:
    """What of an evaluation's rows is compared; the first M tokens with their distance from the latents."""
    kept: list[Row] = [{"peer": None, **{key: row[key] for key in KEPT}, "over_latents": None} for row in rows]
    for row in kept:
        if row["condition"] == "budget-question":
            each = scores_of("budget-question", row["receiver"], row["ratio"], examples, said)
            row["over_latents"] = over_latents(each, row["receiver"], row["ratio"], examples, said, seed)
    return kept


def scores_of(
    condition: str, receiver: str, ratio: int | None, examples: Sequence[Example], said: Sequence[Row]
) -> list[float]:
    """F1 of each example under one of this project's own conditions; empty where it was not measured."""
    key = (condition, receiver, ratio)
    found = {line["id"]: line["f1"] for line in said if (line["condition"], line["receiver"], line["ratio"]) == key}
    return [found[example.id] for example in examples] if found else []


def over_latents(
    each: list[float], receiver: str, ratio: int | None, examples: Sequence[Example], said: Sequence[Row], seed: int
) -> list[float] | None:
    """F1 less that of the latents, and its 95 % interval, question by question: the same ones were hard for both."""
    from latentwire.evaluation.metrics import bootstrap_ci

    latents = scores_of("latents", receiver, ratio, examples, said)
    if not latents:
        return None
    apart = [a - b for a, b in zip(each, latents, strict=True)]
    return [round(value, 4) for value in (sum(apart) / len(apart), *bootstrap_ci(apart, seed))]


def with_retention(rows: list[Row]) -> list[Row]:
    """All rows with retention of F1, by the full text and no context of this project's own rows."""
    from latentwire.evaluation.metrics import retention

    score = {(row["receiver"], row["condition"]): row["f1"] for row in rows if row["peer"] is None}
    for row in rows:
        none, full = (score[row["receiver"], name] for name in ("none", "text"))
        kept = retention(row["f1"], none, full)
        row["retention"] = None if kept is None else round(kept, 4)
    return rows


def agreement(baseline: Row, said: list[Row], examples: Sequence[Example]) -> Row:
    """Whether full text gives the same answers in a peer's environment as here: how many do, and F1 of both.

    baseline: ``peer``, ``receiver``, ``answers`` to the first of the examples. said: lines of ``predictions.jsonl``.
    """
    from latentwire.evaluation.metrics import f1

    examples = examples[: len(baseline["answers"])]
    mine = {
        line["id"]: line["prediction"]
        for line in said
        if line["condition"] == "text" and line["receiver"] == baseline["receiver"]
    }
    pairs = [(mine[example.id], theirs) for example, theirs in zip(examples, baseline["answers"], strict=True)]
    scores = [
        [f1(words, e.answers) for words, e in zip(side, examples, strict=True)] for side in zip(*pairs, strict=True)
    ]
    return {
        "peer": baseline["peer"],
        "receiver": baseline["receiver"],
        "n": len(pairs),
        "same": sum(a == b for a, b in pairs),
        "f1_here": round(sum(scores[0]) / len(pairs), 4),
        "f1_there": round(sum(scores[1]) / len(pairs), 4),
    }


def best(rows: list[Row], count: int) -> list[str]:
    """The methods of the highest F1, over all receivers and ratios; those that lack one of them take no part."""
    each: dict[str, list[float]] = {}
    for row in rows:
        each.setdefault(row["condition"], []).append(row["f1"])
    most = max(map(len, each.values()), default=0)
    whole = [method for method, scores in each.items() if len(scores) == most]
    return sorted(whole, key=lambda method: -sum(each[method]))[:count]
