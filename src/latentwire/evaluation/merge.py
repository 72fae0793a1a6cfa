"""Results of several processes as one: ``python -m latentwire.evaluation.merge OUT DIR DIR … [--wire WIRE]``.

Receivers may be evaluated side by side; their rows belong together if encoder, data, mode, slots, gain and seed are
the same. From a directory of another mode, of other slots or of another gain only the rows of full text and no context
are taken, which depend on none of these. Text and its first tokens do not depend on latents either: such rows are also
taken from a directory of another encoder, if the receivers are the same models and as many positions were kept as the
latents at hand take. Retention is worked out anew, so that a directory may have the rows that another one's are
compared with. The kinds of answers are by two receivers' tokenizers: where each receiver was evaluated by itself, they
need the wire.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentwire.data.files import lines_of
from latentwire.errors import UserError
from latentwire.evaluation.kinds import by_kind
from latentwire.evaluation.results import BEFORE, MEASURED_ON, Key, both, key_of, with_retention
from latentwire.evaluation.runner import PREDICTIONS, RESULTS

if TYPE_CHECKING:
    from latentwire.wire import Wire

ANY = ("text", "none")
"""Conditions that are the same in every mode, for all slots and at any gain."""
TEXT = (*ANY, "budget", "budget-question")
"""Conditions that give text alone, whatever an encoder makes of it."""


def _name(row: dict[str, Any]) -> tuple:
    return tuple(row.get(key) for key in ("receiver", "condition", "ratio", "bits", "kind"))


def _alike(part: dict[str, Any], whole: dict[str, Any]) -> bool:
    return all(part.get(key, BEFORE.get(key)) == whole.get(key, BEFORE.get(key)) for key in ("mode", "slots", "gain"))


def _other_encoder(part: dict[str, Any], whole: dict[str, Any]) -> bool:
    return part["wire"]["encoder"] != whole["wire"]["encoder"]


def _strange(part: dict[str, Any], whole: dict[str, Any]) -> str:
    """Why rows of another encoder may not stand beside those at hand; nothing if they may."""
    if odd := sorted({row["condition"] for row in part["rows"]} - set(TEXT)):
        return f"and has latents ({odd[0]})"
    models = whole["wire"]["receivers"]
    for name, model in part["wire"]["receivers"].items():
        if models.get(name) != model:
            return f"and its {name} is another model"
    taken = {(row["receiver"], row["ratio"]): row for row in whole["rows"] if row["condition"] == "latents"}
    for row in part["rows"]:
        ours = taken.get((row["receiver"], row["ratio"]))
        if row["condition"] not in ANY and (ours is None or ours["kv_positions"] != row["kv_positions"]):
            return f"and gives {row['receiver']} other positions at {row['ratio']}x than the latents"
    return ""


def merge(out: Path, directories: list[Path], wire: Wire | None = None) -> dict[str, Any]:
    """Write the joined ``results.json`` and ``predictions.jsonl`` to ``out``. wire: of at least two receivers, if
    answers are to be split by kind anew."""
    parts = [json.loads((directory / RESULTS).read_text()) for directory in directories]
    whole = parts[0]
    for part, directory in zip(parts[1:], directories[1:], strict=True):
        for key in ("data", "seed", "decoding"):
            if part.get(key, BEFORE.get(key)) != whole.get(key, BEFORE.get(key)):
                raise UserError(f"{directory} differs in {key!r} from {directories[0]}; they cannot be joined")
        if _other_encoder(part, whole):
            strange = _strange(part, whole)
            if strange:
                raise UserError(
                    f"{directory} is of another encoder than {directories[0]} {strange}; they cannot be joined"
                )
            part["wire"] = whole["wire"]
        whole["wire"]["receivers"] |= part["wire"]["receivers"]
        whole["wire"].setdefault("links", {}).update(part["wire"].get("links", {}))
        whole["wire"]["config"] = part["wire"]["config"]
        for key in MEASURED_ON:
            whole[key] = both(whole[key], part[key])
        same = _alike(part, whole)
        for key in ("rows", "kinds"):
            taken = [row for row in part.get(key, []) if same or row["condition"] in ANY]
            whole[key] = whole.get(key, []) + [row | {"mode": whole["mode"]} if "mode" in row else row for row in taken]
    for key in ("rows", "kinds"):
        # parts may share rows that each of them needs beside its own (text and none, for the retention)
        names = {_name(row): row for row in whole.get(key, [])}
        whole[key] = list(names.values())
    with_retention(whole["rows"])
    for kind in {row["kind"] for row in whole["kinds"]}:
        with_retention([row for row in whole["kinds"] if row["kind"] == kind])
    lines: dict[tuple, str] = {}
    for directory, part in zip(directories, parts, strict=True):
        same = _alike(part, whole)
        for line in lines_of(directory / PREDICTIONS):
            said = json.loads(line)
            if same or said["condition"] in ANY:
                lines[(*_name(said), said.get("id"))] = line
    if wire is not None:
        whole["kinds"] = _kinds(wire, [json.loads(line) for line in lines.values()])
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULTS).write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    (out / PREDICTIONS).write_text("".join(f"{line}\n" for line in lines.values()))
    return whole


def _kinds(wire: Wire, said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    first = {line["id"]: next(iter(line["answers"]), "") for line in said}
    rows: dict[Key, dict[str, dict[str, Any]]] = {}
    for line in said:
        rows.setdefault(key_of(line), {})[line["id"]] = line
    return by_kind(wire, list(first.values()), {key: [row[i] for i in first] for key, row in rows.items()})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="what an evaluation wrote")
    parser.add_argument("--wire", help="the wire, to split answers by kind anew")
    given = parser.parse_args()
    try:
        wire = None
        if given.wire:
            from latentwire.wire import Wire

            wire = Wire.from_pretrained(given.wire)
        merge(given.out, given.directories, wire)
    except UserError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
