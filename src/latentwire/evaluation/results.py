"""Rows of ``results.json`` and lines of ``predictions.jsonl``: made, kept as they come, and found again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentwire.config import config_hash, encode
from latentwire.data.files import lines_of
from latentwire.environment import device_name, versions
from latentwire.evaluation.decoding import PLAIN
from latentwire.evaluation.items import Items
from latentwire.evaluation.measure import PARTS, Measured
from latentwire.evaluation.metrics import bootstrap_ci, exact_match, retention, score
from latentwire.evaluation.setting import Setting
from latentwire.types import Example
from latentwire.wire import Wire

log = logging.getLogger(__name__)

RESULTS, PREDICTIONS = "results.json", "predictions.jsonl"
SCORES = ("em", "f1", "f1_ci", "nll", "first_token", "retention", "positions", "kv_positions", "own_ratio")

Key = tuple[str, str, int | None, float | None]
"""What names a row: receiver, condition, ratio, bits (below 1: of learned codes)."""
Row = dict[str, Any]
JOINT = "joint:"
"""How the receiver of a row begins whose answers several have weighed; their names follow, plus signs between."""


def head(wire: Wire, examples: Sequence[Example], setting: Setting) -> dict[str, Any]:
    """What the numbers depend on. The entries in ``SAME`` must be equal for a stopped run to go on."""
    rows = [[e.id, e.question, e.context, list(e.answers)] for e in examples]
    return {
        "wire": {
            "encoder": wire.fingerprint.hex(),
            "config": config_hash(encode(wire.settings)),
            "receivers": {name: wire.get_receiver(name).fingerprint() for name in wire.receivers},
            "links": {name: wire.links[name].fingerprint() for name in wire.receivers},  # ty: ignore[not-callable]
        },
        "data": {"n": len(examples), "hash": config_hash({"rows": rows})},
        "mode": setting.mode,
        "slots": setting.slots,
        "gain": setting.gain,
        "seed": setting.seed,
        "decoding": setting.decoding.tree(),
        "versions": versions(),
        "device": device_name(wire.device),
        "rows": [],
        "kinds": [],
    }


SAME = ("wire", "data", "mode", "slots", "gain", "seed", "decoding")
"""What must be equal for rows to belong together."""
BEFORE: dict[str, Any] = {"gain": 1.0, "decoding": PLAIN.tree()}
"""What held in results from before there was a choice."""
MEASURED_ON = ("versions", "device")
"""What says where rows were measured; no reason to set rows aside, and never to be lost."""


def both(one: Any, other: Any) -> Any:
    """Where two sets of rows were measured: the same fact once, different ones with a comma between."""
    if isinstance(one, dict):
        return {key: both(value, other.get(key, value)) for key, value in one.items()}
    return ", ".join(dict.fromkeys([*str(one).split(", "), *str(other).split(", ")]))


def row_of(got: Measured, items: Items, key: Key, seed: int) -> Row:
    """One row of the table, without its retention."""
    n = len(items.examples)
    pairs = list(zip(got.predictions, items.examples, strict=True))
    scores = [score(said, e) for said, e in pairs]
    kv = sum(got.kv) / n
    return named(key, items) | {
        "em": round(sum(exact_match(said, e.answers) for said, e in pairs) / n, 4),
        "f1": round(sum(scores) / n, 4),
        "f1_ci": [round(end, 4) for end in bootstrap_ci(scores, seed)],
        # a mean over tokens, not over answers
        "nll": round(sum(got.nll) / sum(got.answer_tokens), 4),
        "first_token": round(sum(got.first) / n, 4),
        "retention": None,
        "positions": round(sum(got.positions) / n, 2),
        "kv_positions": round(kv, 2),
        "own_ratio": round(sum(got.own) / n / kv, 2) if kv else None,
        "bytes": round(sum(got.bytes) / n, 1),
        "cut": got.cut,
        "seconds": {part: round(value, 3) for part, value in got.seconds.items()},
        "na": None,
    }


def row_not_applicable(items: Items, key: Key, why: str) -> Row:
    """The row of a condition that says nothing on this data; ``na`` says why."""
    empty = dict.fromkeys((*SCORES, "bytes"))
    return named(key, items) | empty | {"cut": 0, "seconds": dict.fromkeys(PARTS, 0.0), "na": why}


def named(key: Key, items: Items) -> Row:
    """How a row begins."""
    receiver, condition, ratio, bits = key
    return {
        "receiver": receiver,
        "condition": condition,
        "mode": items.mode,
        "ratio": ratio,
        "bits": bits,
        "n": len(items.examples),
    }


def key_of(row: Row) -> Key:
    """What names a row, or a prediction."""
    return row["receiver"], row["condition"], row["ratio"], row["bits"]


def with_retention(rows: list[Row]) -> list[Row]:
    """Rows with retention of F1, where the receiver's rows ``text`` and ``none`` are there to compare with."""
    score = {(row["receiver"], row["condition"]): row["f1"] for row in rows}
    for row in rows:
        full, none = score.get((row["receiver"], "text")), score.get((row["receiver"], "none"))
        if full is not None and none is not None and row["f1"] is not None:
            kept = retention(row["f1"], none, full)
            row["retention"] = None if kept is None else round(kept, 4)
    return rows


class Kept:
    """Finished rows and their answers, in memory and (with ``out``) on disk.

    Both files are always whole: a stopped run goes on with the rows that were finished. Results that differ in one of
    ``SAME`` are set aside under a number, never overwritten and never mixed.
    """

    def __init__(self, out: Path | None, results: dict[str, Any]) -> None:
        self.out, self.results = out, results
        self.here = {key: results[key] for key in MEASURED_ON}
        self.rows: dict[Key, Row] = {}
        self.said: dict[Key, list[dict[str, Any]]] = {}
        if out is not None and (out / RESULTS).is_file():
            self._find(out)

    def _find(self, out: Path) -> None:
        try:
            old = json.loads((out / RESULTS).read_text(encoding="utf-8"))
            same = all(old.get(key, BEFORE.get(key)) == self.results[key] for key in SAME)
            rows = {key_of(row): row for row in old["rows"]}
        except (json.JSONDecodeError, KeyError, TypeError):
            same, rows = False, {}
        if not same:
            log.warning("results of another %s in %s are set aside as %s", " or ".join(SAME), out, _aside(out))
            return
        for line in _lines(out / PREDICTIONS):
            self.said.setdefault(key_of(line), []).append(line)
        n = self.results["data"]["n"]
        self.rows = {key: row for key, row in rows.items() if row["na"] or len(self.said.get(key, [])) == n}
        self.said = {key: lines for key, lines in self.said.items() if key in self.rows}
        if self.rows:
            self.results |= {key: old[key] for key in MEASURED_ON if key in old}
        # answers of a row that was being written when the run was stopped
        _replace(out / PREDICTIONS, [line for lines in self.said.values() for line in lines])

    def add(
        self, row: Row, items: Items, order: list[Key], said: list[str] | None, more: list[Row] | None = None
    ) -> None:
        """Keep a finished row and its answers. order: of the rows in the file. said: an answer to each question, None
        where a row does not apply. more: what else is told of each answer."""
        key = key_of(row)
        self.results |= {name: both(self.results[name], here) for name, here in self.here.items()}
        self.rows[key] = row
        if said is not None:
            names = {name: row[name] for name in ("receiver", "condition", "ratio", "bits")}
            self.said[key] = [
                {
                    "id": e.id,
                    **names,
                    "prediction": text,
                    "answers": list(e.answers),
                    "f1": round(score(text, e), 4),
                    **rest,
                }
                for text, e, rest in zip(said, items.examples, more or [{}] * len(said), strict=True)
            ]
        self.write(order, self.said.get(key, []))

    def write(self, order: list[Key], lines: list[dict[str, Any]]) -> None:
        """Bring both files up to date; answers first, so that no row in the table is without them."""
        places = {key: place for place, key in enumerate(order)}
        ordered = sorted(self.rows, key=lambda key: places.get(key, len(places)))
        self.results["rows"] = with_retention([self.rows[key] for key in ordered])
        if self.out is None:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / PREDICTIONS).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        part = self.out / f".{RESULTS}.{os.getpid()}"
        part.write_text(json.dumps(self.results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, self.out / RESULTS)


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in lines_of(path) if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # the last line of a run that was killed while it wrote
            continue
    return found


def _replace(path: Path, lines: list[dict[str, Any]]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    os.replace(part, path)


def _aside(out: Path) -> str:
    number = 1
    while (out / f"results-{number}.json").exists():
        number += 1
    for name in (RESULTS, PREDICTIONS):
        stem, ending = name.split(".")
        if (out / name).is_file():
            os.replace(out / name, out / f"{stem}-{number}.{ending}")
    return f"results-{number}.json"
