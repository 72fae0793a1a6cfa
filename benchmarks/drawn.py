"""F1 of an evaluation on the questions that ``eval --n`` draws: ``python benchmarks/drawn.py DIR --n 1000 --out FILE``.

An evaluation of all questions stands beside an earlier one of fewer, on the very same questions. DIR holds what an
evaluation wrote (``results.json``, ``predictions.jsonl``).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from latentwire.data.files import lines_of
from latentwire.data.rows import draw, read_examples
from latentwire.data.squad import shipped_valid
from latentwire.evaluation.metrics import bootstrap_ci
from latentwire.evaluation.results import key_of


def drawn(directory: Path, n: int, seed: int) -> dict[str, Any]:
    """What the file holds: where the figures come from, and a row for each row of the evaluation."""
    results = json.loads((directory / "results.json").read_text(encoding="utf-8"))
    chosen = {example.id for example in draw(read_examples(shipped_valid()), n, seed)}
    scores: dict[tuple, list[float]] = {}
    for line in lines_of(directory / "predictions.jsonl"):
        said = json.loads(line)
        if said["id"] in chosen:
            scores.setdefault(key_of(said), []).append(said["f1"])
    rows = []
    for (receiver, condition, ratio, bits), each in scores.items():
        row = {"receiver": receiver, "condition": condition, "ratio": ratio, "bits": bits, "n": len(each)}
        low, high = bootstrap_ci(each, seed)
        rows.append(row | {"f1": round(sum(each) / len(each), 4), "f1_ci": [round(low, 4), round(high, 4)]})
    kept = ("wire", "data", "mode", "slots", "versions", "device")
    return {key: results.get(key) for key in kept} | {"drawn": {"n": n, "seed": seed}, "rows": rows}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("directory", type=Path, metavar="DIR", help="what an evaluation of all questions wrote")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    text = json.dumps(drawn(given.directory, given.n, given.seed), indent=1)
    given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
