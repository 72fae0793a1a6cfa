"""F1 by kind of answer: where a receiver whose tokens are cut differently loses what the encoder's own one keeps."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from latentwire.evaluation.items import Items
from latentwire.evaluation.metrics import retention
from latentwire.wire import Wire

KINDS = ("digits", "alike", "different")


def kind_of(answer: str, cuts: list[list[str]]) -> str:
    """``digits``: the answer has some. ``alike``: all tokenizers cut it into the same pieces. Else ``different``."""
    if any(c.isdigit() for c in answer):
        return "digits"
    return "alike" if all(cut == cuts[0] for cut in cuts) else "different"


def by_kind(wire: Wire, items: Items, predictions: Path) -> list[dict[str, Any]]:
    """Rows ``{receiver, condition, ratio, bits, kind, n, f1, retention}`` for text, none and latents; the kinds are by
    the first two receivers' tokenizers. Empty with fewer than two receivers."""
    if len(wire.receivers) < 2 or not predictions.is_file():
        return []
    prompts = [wire.get_receiver(name).prompt for name in wire.receivers[:2]]
    first = [e.answers[0] for e in items.examples]
    pieces = []
    for prompt in prompts:
        ids = prompt.ids([f" {answer}" for answer in first])
        pieces.append([[prompt.tokenizer.decode([token]) for token in row] for row in ids])
    kinds = {
        e.id: kind_of(answer, [cut[i] for cut in pieces])
        for i, (e, answer) in enumerate(zip(items.examples, first, strict=True))
    }
    scores: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    with predictions.open() as file:
        for line in file:
            row = json.loads(line)
            if row["condition"] in ("text", "none", "latents") and row["id"] in kinds:
                key = (row["receiver"], row["condition"], row["ratio"], row["bits"], kinds[row["id"]])
                scores[key].append(row["f1"])
    mean = {key: sum(values) / len(values) for key, values in scores.items()}
    rows = []
    for (receiver, condition, ratio, bits, kind), value in mean.items():
        full = mean.get((receiver, "text", None, None, kind))
        none = mean.get((receiver, "none", None, None, kind))
        kept = None if full is None or none is None else retention(value, none, full)
        rows.append(
            {"receiver": receiver, "condition": condition, "ratio": ratio, "bits": bits, "kind": kind,
             "n": len(scores[receiver, condition, ratio, bits, kind]), "f1": round(value, 4),
             "retention": None if kept is None else round(kept, 4)}
        )  # fmt: skip
    return rows
