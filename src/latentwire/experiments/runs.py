"""Runs as they lie on disk, read for a report: what ``latentwire eval`` and ``latentwire train`` leave behind.

Nothing here knows a model, and torch is not imported: a report of a night's runs should take a second.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentwire.data.files import parse_row, readable
from latentwire.errors import UserError

# as evaluation.results and training.journal name them; importing those would import torch
RESULTS, PREDICTIONS = "results.json", "predictions.jsonl"
METRICS, DIAGNOSTICS, CONFIG, ENVIRONMENT = "metrics.jsonl", "diagnostics.jsonl", "config.yaml", "environment.jsonl"


ROW = {"condition", "f1"}
NAMES, SPANS, OTHER = {"receiver", "condition"}, {"f1_ci"}, {"mode", "seconds", "na"}
"""Keys of a row that hold text, two numbers, and what is not read as a number; all others are numbers or null."""


@dataclass(frozen=True)
class Evaluation:
    """One ``results.json``. predictions: the file of answers, None where there is none beside it."""

    name: str
    results: dict[str, Any]
    predictions: Path | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table, as in the file."""
        return self.results["rows"]

    @property
    def receivers(self) -> list[str]:
        """Names in the order of the file."""
        return list(dict.fromkeys(row["receiver"] for row in self.rows))


@dataclass(frozen=True)
class Training:
    """One folder of a training. metrics, diagnostics: lines in their order. config: ``config.yaml`` as it is written,
    nothing where it is absent. begun: where it ran each time it was begun or gone on with."""

    name: str
    metrics: list[dict[str, Any]]
    diagnostics: list[dict[str, Any]] = field(default_factory=list)
    config: str = ""
    begun: list[dict[str, Any]] = field(default_factory=list)

    def of(self, *sources: str) -> list[dict[str, Any]]:
        """Lines of metrics from these sources: ``text``, ``questions``, ``dev``, ``event``."""
        return [line for line in self.metrics if line.get("source") in sources]


def read_runs(paths: Sequence[Path]) -> list[Evaluation | Training]:
    """What lies at each path: a folder of either kind, or a ``results.json`` under any name.

    The evaluations that a training made of itself (``dev``, ``stages/NAME/dev``) come behind it. UserError: no such
    path, a folder of neither kind, a file that holds no rows of an evaluation, or a broken line.
    """
    found: list[Evaluation | Training] = []
    for path, name in zip(paths, _names(paths), strict=True):
        if path.is_file():
            found.append(read_evaluation(path, name))
            continue
        if not path.is_dir():
            raise UserError(f"there is no {path}; a report is made from folders of eval and train, or a results file")
        if not (path / RESULTS).is_file() and not (path / METRICS).is_file():
            raise UserError(
                f"{path} holds neither {RESULTS} nor {METRICS}; give a folder that `latentwire eval --out` or "
                "`latentwire train --out` wrote"
            )
        if (path / RESULTS).is_file():
            found.append(read_evaluation(path / RESULTS, name))
        if (path / METRICS).is_file():
            found.append(read_training(path, name))
            for own in [path / "dev" / RESULTS, *sorted(path.glob(f"stages/*/dev/{RESULTS}"))]:
                if own.is_file():
                    found.append(read_evaluation(own, f"{name}/{own.parent.relative_to(path)}"))
    return found


def read_evaluation(path: Path, name: str) -> Evaluation:
    """A results file, and the answers that lie beside one that is called ``results.json``."""
    try:
        with readable(path):
            results = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        why = f"{error.msg} at line {error.lineno}"
        raise UserError(f"{path} is not valid JSON ({why}); a results file of `latentwire eval` is needed") from None
    rows = results.get("rows") if isinstance(results, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and set(row) >= ROW for row in rows):
        raise UserError(f"{path} holds no rows of an evaluation (condition, f1); `latentwire eval` writes such a file")
    # a reader that was scored by itself has no wire to name it
    rows = [{"receiver": name, "ratio": None, "bits": None} | row for row in rows]
    for number, row in enumerate(rows, 1):
        for key, value in row.items():
            if not _fits(key, value):
                raise UserError(f"{path}, row {number}: {key!r} is {json.dumps(value)}, which eval does not write")
    beside = path.with_name(PREDICTIONS)
    answered = path.name == RESULTS and beside.is_file()
    return Evaluation(name, results | {"rows": rows}, beside if answered else None)


def read_training(folder: Path, name: str) -> Training:
    """A training's folder, which holds ``metrics.jsonl``; the rest may be absent."""
    config = folder / CONFIG
    with readable(config):
        text = config.read_text(encoding="utf-8") if config.is_file() else ""
    found = {}
    for file in (METRICS, DIAGNOSTICS):
        found[file] = [row for row, _ in lines(folder / file)]
        for number, row in enumerate(found[file], 1):
            if not _number(row.get("step")):
                raise UserError(f"{folder / file}, row {number}: no 'step'; `latentwire train` writes one in each line")
    return Training(name, found[METRICS], found[DIAGNOSTICS], text, [row for row, _ in lines(folder / ENVIRONMENT)])


def lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """``(object, its line)`` of each line of a file, none where there is no file. A last line that a killed run cut off
    is left out. UserError: a line before it that is no JSON object."""
    if not path.is_file():
        return
    with readable(path), path.open("rb") as file:
        # bytes are split at \n alone; a decoded line may hold other characters that end a line for Python
        for number, line in enumerate(file, 1):
            if not line.endswith((b"\n", b"}")):
                return
            if line.strip():
                text = line.decode("utf-8")
                yield parse_row(text, f"{path}, line {number}"), text


def _fits(key: str, value: Any) -> bool:
    if key in NAMES:
        return isinstance(value, str)
    if key in SPANS and value is not None:
        return isinstance(value, list) and len(value) == 2 and all(_number(end) for end in value)
    return key in OTHER or value is None or _number(value)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or as much of it as tells it from the others."""
    wholes = [path.resolve().with_suffix("") if path.is_file() else path.resolve() for path in paths]
    if len(set(wholes)) < len(wholes):
        twice = next(path for path, whole in zip(paths, wholes, strict=True) if wholes.count(whole) > 1)
        raise UserError(f"{twice} is given twice")
    longest = max((len(whole.parts) for whole in wholes), default=0)
    for length in range(1, longest + 1):
        names = ["/".join(whole.parts[-length:]) for whole in wholes]
        if len(set(names)) == len(names):
            return names
    return [str(whole) for whole in wholes]


def flat(tree: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    """All that a tree says, as ``(dotted name, value)``; nothing of what is empty."""
    out = []
    for key, value in tree.items():
        if isinstance(value, dict):
            out += flat(value, f"{before}{key}.")
        elif value is not None and value != []:
            out.append((f"{before}{key}", value if isinstance(value, str) else json.dumps(value)))
    return out
