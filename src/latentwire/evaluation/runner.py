"""``evaluate``: receivers × conditions × ratios × bits, every row kept as soon as it is measured."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from latentwire import __version__
from latentwire.codecs import by_bits
from latentwire.conditions import Condition, LatentCondition, TextCondition
from latentwire.config import config_hash, encode
from latentwire.errors import UserError
from latentwire.evaluation.items import Encoded, Items, encode_all
from latentwire.evaluation.kinds import by_kind
from latentwire.evaluation.measure import Measured, Tokens, measure
from latentwire.evaluation.metrics import bootstrap_ci, exact_match, f1, retention
from latentwire.types import MODES, Example
from latentwire.wire import Wire

ORDER = ("text", "none", "latents", "budget-question", "budget", "same-bytes", "zero", "shuffled", "wrong")
RESULTS, PREDICTIONS = "results.json", "predictions.jsonl"


def evaluate(
    wire: Wire,
    examples: Sequence[Example],
    ratios: Sequence[int] = (4,),
    bits: Sequence[int] = (16,),
    conditions: Sequence[str] | None = None,
    receivers: Sequence[str] | None = None,
    mode: str = "context",
    seed: int = 0,
    batch_size: int = 0,
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a wire; returns what ``results.json`` holds (see docs/evaluation.md for every field).

    With ``out``, rows and predictions are written as they come, and a run that was stopped goes on where it ended.
    Controls and budgets are measured at the first of ``bits``.
    """
    names = list(receivers or wire.receivers)
    chosen = [(name, _condition(name)) for name in conditions or ORDER]
    _check(wire, examples, ratios, names, mode)
    batch_size = batch_size or (512 if wire.device.type == "cuda" else 48)
    items = Items.of(list(examples), mode)
    results = _head(wire, examples, mode, seed)
    done = _resume(out, results)
    plan = [
        (receiver, name, condition, ratio, bit)
        for receiver in names
        for name, condition in chosen
        for ratio in (ratios if condition.by_ratio else (None,))
        for bit in (bits if condition.by_bits else bits[:1] if condition.by_ratio else (None,))
    ]
    todo = [job for job in plan if (job[0], job[1], job[3], job[4]) not in done]
    encoded: dict[int, Encoded] = {}
    tokens: dict[str, Tokens] = {}
    with _bar(len(todo) * len(examples), progress) as tick:
        for receiver, name, condition, ratio, bit in todo:
            if ratio is not None and ratio not in encoded:
                encoded[ratio] = encode_all(wire, items, ratio, batch_size)
            model = wire.get_receiver(receiver)
            tokens.setdefault(receiver, Tokens(model, items))
            codec = by_bits(bit or 16)
            got = measure(wire, model, condition, items, tokens[receiver], encoded.get(ratio or 0), codec,
                          batch_size, seed, tick)  # fmt: skip
            row = _row(got, items, receiver, name, mode, ratio, bit, seed, condition)
            done[receiver, name, ratio, bit] = row
            results["rows"] = _with_retention([done[key] for key in _keys(plan) if key in done])
            _keep(out, results, _said(got, items, row))
    results["rows"] = _with_retention([done[key] for key in _keys(plan) if key in done])
    if out is not None:
        results["kinds"] = by_kind(wire, items, out / PREDICTIONS)
        _keep(out, results, [])
    return results


def _keys(plan: list[tuple[str, str, Condition, int | None, int | None]]) -> list[tuple[str, str, int | None, int | None]]:
    return [(receiver, name, ratio, bit) for receiver, name, _, ratio, bit in plan]


def _condition(name: str) -> TextCondition | LatentCondition:
    known = Condition.known()
    if name not in known:
        raise UserError(f"there is no condition {name!r}; there are: {', '.join(sorted(known))}")
    return known[name]()


def _check(wire: Wire, examples: Sequence[Example], ratios: Sequence[int], names: list[str], mode: str) -> None:
    if not examples:
        raise UserError("there are no examples to evaluate on")
    if mode not in MODES:
        raise UserError(f"mode is {' or '.join(MODES)}, not {mode!r}")
    for ratio in ratios:
        wire.encoder.check_ratio(ratio)
    for name in names:
        wire.get_receiver(name)


def _head(wire: Wire, examples: Sequence[Example], mode: str, seed: int) -> dict[str, Any]:
    """What a row's number depends on: everything that must be equal for a stopped run to go on."""
    device = wire.device
    return {
        "wire": {
            "encoder": wire.fingerprint.hex(),
            "config": config_hash(encode(wire.settings)),
            "receivers": {name: wire.get_receiver(name).fingerprint() for name in wire.receivers},
        },
        "data": {"n": len(examples), "hash": config_hash({"rows": [[e.id, e.question, e.context] for e in examples]})},
        "mode": mode,
        "seed": seed,
        "versions": {
            "latentwire": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "rows": [],
    }


def _resume(out: Path | None, results: dict[str, Any]) -> dict[tuple[str, str, int | None, int | None], dict[str, Any]]:
    """Rows that an earlier call with the same wire, data and seed has finished."""
    if out is None or not (out / RESULTS).is_file():
        return {}
    try:
        old = json.loads((out / RESULTS).read_text())
        same = all(old[key] == results[key] for key in ("wire", "data", "mode", "seed"))
    except (json.JSONDecodeError, KeyError, OSError):
        same, old = False, {}
    if not same:
        raise UserError(f"{out} holds results of another wire, data, mode or seed; choose another --out")
    return {(row["receiver"], row["condition"], row["ratio"], row["bits"]): row for row in old["rows"]}


def _row(
    got: Measured, items: Items, receiver: str, name: str, mode: str, ratio: int | None, bit: int | None, seed: int,
    condition: Condition,
) -> dict[str, Any]:  # fmt: skip
    pairs = list(zip(got.predictions, items.examples, strict=True))
    scores = [f1(said, e.answers) for said, e in pairs]
    n = len(scores)
    kv = sum(got.kv) / n
    full_bytes = sum(len(items.texts[i].encode()) for i in items.owner) / n
    size = sum(got.bytes) / n
    low, high = bootstrap_ci(scores, seed)
    row: dict[str, Any] = {
        "receiver": receiver, "condition": name, "mode": mode, "ratio": ratio, "bits": bit, "n": n,
        "em": round(sum(exact_match(said, e.answers) for said, e in pairs) / n, 4),
        "f1": round(sum(scores) / n, 4),
        "f1_ci": [round(low, 4), round(high, 4)],
        "nll": round(sum(got.nll) / n, 4),
        "first_token": round(sum(got.first) / n, 4),
        "retention": None,
        "positions": round(sum(got.positions) / n, 2),
        "kv_positions": round(kv, 2),
        "own_ratio": round(sum(got.own) / n / kv, 2) if kv else None,
        "bytes": round(size, 1),
        "cut": got.cut,
        "seconds": {part: round(value, 3) for part, value in got.seconds.items()},
    }  # fmt: skip
    if name == "same-bytes" and size >= full_bytes - 0.5:
        # the packet is larger than the text: the cut cuts nothing, and the row would be the text's own score
        row |= dict.fromkeys(("em", "f1", "f1_ci", "nll", "first_token"))
    return row


def _with_retention(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with retention of F1, where the receiver's rows ``text`` and ``none`` are there to compare with."""
    score = {(row["receiver"], row["condition"]): row["f1"] for row in rows}
    for row in rows:
        full, none = score.get((row["receiver"], "text")), score.get((row["receiver"], "none"))
        if full is not None and none is not None and row["f1"] is not None:
            kept = retention(row["f1"], none, full)
            row["retention"] = None if kept is None else round(kept, 4)
    return rows


def _said(got: Measured, items: Items, row: dict[str, Any]) -> list[dict[str, Any]]:
    key = {name: row[name] for name in ("receiver", "condition", "ratio", "bits")}
    return [
        key | {"id": e.id, "prediction": said, "answers": list(e.answers), "f1": round(f1(said, e.answers), 4)}
        for said, e in zip(got.predictions, items.examples, strict=True)
    ]


def _keep(out: Path | None, results: dict[str, Any], said: list[dict[str, Any]]) -> None:
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    with (out / PREDICTIONS).open("a") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in said)
    part = out / f".{RESULTS}.{os.getpid()}"
    part.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    os.replace(part, out / RESULTS)


@contextmanager
def _bar(total: int, progress: bool) -> Iterator[Callable[[int], None]]:
    if not progress:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TextColumn("answers"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluating", total=total)
        yield lambda n: bar.advance(task, n)
