"""Single questions for a report: those where latents lost most against the text, and those where they did best."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentwire.data.progress import progress
from latentwire.errors import UserError
from latentwire.experiments.runs import lines
from latentwire.types import Example

SHOWN = 10
KEYS = {"id", "receiver", "condition", "ratio", "bits", "prediction", "answers", "f1"}


@dataclass(frozen=True)
class Shown:
    """One question. text, latents: mean F1 over receivers, and for latents over ratios and bits.

    said: every condition's row, ``(condition, ratio, bits, {receiver: line of predictions.jsonl})``. asked: the
    question with its context, where it is known.
    """

    id: str
    answers: list[str]
    text: float
    latents: float
    said: list[tuple[str, int | None, int | None, dict[str, dict[str, Any]]]]
    asked: Example | None

    @property
    def difference(self) -> float:
        """What latents gain over the text; below 0 what they lose."""
        return self.latents - self.text


def extremes(
    predictions: Path, questions: Mapping[str, Example], shown: int = SHOWN
) -> tuple[list[Shown], list[Shown]]:
    """The ``shown`` worst and best questions by mean F1 of latents less that of the text; no question is in both, and
    there are none without answers from both. UserError: a line that lacks something.
    """
    raw: dict[str, list[str]] = {}
    scores: dict[str, dict[str, list[float]]] = {}
    done, total = 0, predictions.stat().st_size
    with progress("answers", total) as show:
        for number, (line, text) in enumerate(lines(predictions)):
            if absent := KEYS - set(line):
                raise UserError(f"{predictions}, row {number + 1}: no {min(absent)!r}; `latentwire eval` writes it")
            done += len(text)
            raw.setdefault(line["id"], []).append(text)  # a fraction of the memory that the objects would take
            if line["condition"] in ("text", "latents"):
                scores.setdefault(line["id"], {}).setdefault(line["condition"], []).append(line["f1"])
            if number % 2000 == 0:
                show(done, f"{number:,} lines")
    mean = {
        name: {condition: sum(found) / len(found) for condition, found in by.items()}
        for name, by in scores.items()
        if len(by) == 2
    }

    def gain(name: str) -> float:
        # rounded: a mean of the same values in another order is the same mean
        return round(mean[name]["latents"] - mean[name]["text"], 9)

    # the better the latents, the more either end shows: of equal losses those of a text that was answered right
    order = sorted(mean, key=lambda name: (gain(name), -mean[name]["latents"]))
    half = (len(order) + 1) // 2
    best = sorted(order[half:], key=lambda name: (-gain(name), -mean[name]["latents"]))
    return (
        [_shown(name, raw[name], mean[name], questions) for name in order[:half][:shown]],
        [_shown(name, raw[name], mean[name], questions) for name in best[:shown]],
    )


def _shown(name: str, raw: list[str], mean: dict[str, float], questions: Mapping[str, Example]) -> Shown:
    found = [json.loads(text) for text in raw]
    rows: dict[tuple, dict[str, dict[str, Any]]] = {}
    for line in found:
        rows.setdefault((line["condition"], line["ratio"], line["bits"]), {})[line["receiver"]] = line
    asked, answers = questions.get(name), found[0]["answers"]
    if asked is not None and list(asked.answers) != answers:
        asked = None  # another file's question under the same id
    said = [(*key, by) for key, by in rows.items()]
    return Shown(name, answers, mean["text"], mean["latents"], said, asked)
