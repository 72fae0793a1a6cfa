"""Results of several processes as one: ``python -m latentwire.evaluation.merge OUT DIR DIR …``.

Receivers may be evaluated side by side; their rows belong together if encoder, data, mode, slots and seed are the same.
From a directory of another mode or of other slots only the rows of full text and no context are taken, which depend on
neither. Retention is worked out anew, so that a directory may have the rows that another one's are compared with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from latentwire.errors import UserError
from latentwire.evaluation.results import MEASURED_ON, both, with_retention
from latentwire.evaluation.runner import PREDICTIONS, RESULTS

ANY = ("text", "none")
"""Conditions that are the same in every mode and for all slots."""


def _name(row: dict[str, Any]) -> tuple:
    return tuple(row.get(key) for key in ("receiver", "condition", "ratio", "bits", "kind"))


def _alike(part: dict[str, Any], whole: dict[str, Any]) -> bool:
    return all(part.get(key) == whole.get(key) for key in ("mode", "slots"))


def merge(out: Path, directories: list[Path]) -> dict[str, Any]:
    """Write the joined ``results.json`` and ``predictions.jsonl`` to ``out``."""
    parts = [json.loads((directory / RESULTS).read_text()) for directory in directories]
    whole = parts[0]
    for part, directory in zip(parts[1:], directories[1:], strict=True):
        for key in ("data", "seed"):
            if part.get(key) != whole.get(key):
                raise UserError(f"{directory} differs in {key!r} from {directories[0]}; they cannot be joined")
        if part["wire"]["encoder"] != whole["wire"]["encoder"]:
            raise UserError(f"{directory} is of another encoder than {directories[0]}; they cannot be joined")
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
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULTS).write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    with (out / PREDICTIONS).open("w") as file:
        lines: dict[tuple, str] = {}
        for directory, part in zip(directories, parts, strict=True):
            same = _alike(part, whole)
            for line in (directory / PREDICTIONS).read_text().splitlines():
                said = json.loads(line)
                if same or said["condition"] in ANY:
                    lines[(*_name(said), said.get("id"))] = line
        file.writelines(f"{line}\n" for line in lines.values())
    return whole


if __name__ == "__main__":
    merge(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
