"""Measure again what README and cards quote, with the shipped weights: ``python benchmarks/again.py`` (make results).

Some questions stand for all of them, so that a CPU can do it. Two figures stand beside each new one: what was scored
on the very same questions before (``first.json``, made by ``--keep`` from an evaluation's answers), which must be met,
and what is quoted. Where no answers were kept, what is quoted must lie in the new figure's interval. Finished rows are
kept: called again, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from readme_table import BLOCK, RESULTS, documents

from latentwire.config import config_hash
from latentwire.data.files import lines_of
from latentwire.data.rows import draw, read_examples
from latentwire.data.squad import shipped_valid
from latentwire.evaluation.merge import ANY
from latentwire.evaluation.results import key_of
from latentwire.experiments import processes
from latentwire.types import MODES, Example

FIRST = RESULTS / "first.json"
NEAR = 0.02
"""Further off than this is another result: a GPU in bfloat16 and a CPU differ by less on 500 questions."""
Row = dict[str, Any]


def quoted() -> list[str]:
    """Names of the results that README and cards quote, of the shipped questions."""
    names = [match["file"] for path in documents() for match in BLOCK.finditer(path.read_text(encoding="utf-8"))]
    return [name for name in dict.fromkeys(names) if (RESULTS / name).is_file()]


def keep(results: dict[str, Path], n: int) -> dict[str, Any]:
    """F1 on the first ``n`` questions, from the answers of whole evaluations, by the name of their quoted file; and
    which questions these are the first of."""
    found: dict[str, Any] = {"n": n}
    for name, directory in results.items():
        whole = json.loads((directory / "results.json").read_text(encoding="utf-8"))
        first = {example.id for example in asked(whole, n)}
        scores: dict[tuple, list[float]] = {}
        for line in lines_of(directory / "predictions.jsonl"):
            said = json.loads(line)
            if said["id"] in first:
                scores.setdefault(key_of(said), []).append(said["f1"])
        names = ("receiver", "condition", "ratio", "bits")
        rows = [dict(zip(names, key, strict=True)) | {"f1": round(sum(s) / len(s), 4)} for key, s in scores.items()]
        of = {"n": whole["data"]["n"], "seed": whole["seed"]}
        found[name] = {"encoder": whole["wire"]["encoder"], "of": of, "rows": rows}
    return found


def asked(whole: dict[str, Any], n: int) -> list[Example]:
    """The first ``n`` questions of an evaluation, in its order: of all of them, or of those that its seed drew."""
    return drawn({"n": whole["data"]["n"], "seed": whole["seed"]}, n)


def drawn(of: dict[str, int], n: int) -> list[Example]:
    """The first ``n`` of as many questions as ``of`` says, drawn by its seed."""
    return draw(read_examples(shipped_valid()), of["n"], of["seed"])[:n]


def measure(path: Path, n: int, wire_name: str, out: Path, of: dict[str, int], reader: str) -> list[Row]:
    """One receiver's rows of a quoted file, measured on the first ``n`` questions of ``of``."""
    from latentwire import Wire
    from latentwire.evaluation.runner import evaluate

    whole = json.loads(path.read_text(encoding="utf-8"))
    rows, examples = [row for row in whole["rows"] if row["receiver"] == reader and not row["na"]], drawn(of, n)
    wire = Wire.from_pretrained(wire_name, receivers=[reader])
    if wire.fingerprint.hex() != whole["wire"]["encoder"]:
        sys.exit(
            f"error: {path.name} is of encoder {whole['wire']['encoder']}, {wire_name} has {wire.fingerprint.hex()}"
        )
    ids = config_hash({"ids": [e.id for e in examples]})[:6]
    found: dict[tuple, Row] = {}
    for alike in (True, False):
        mine = [row for row in rows if (row["condition"] in ANY) == alike]
        if not mine:
            continue
        ratios = sorted({row["ratio"] for row in mine if row["ratio"]}) or [wire.ratios[0]]
        bits = sorted({row["bits"] for row in mine if row["bits"]}, reverse=True) or [16]
        # text and nothing are the same in every file, and text is what takes longest: measured once. All others of a
        # file together: texts are then encoded once for each ratio, and encoding is what takes longest of these
        conditions = list(dict.fromkeys(row["condition"] for row in mine))
        mode, slots = (MODES[0], None) if alike else (whole["mode"], whole["slots"])
        place = out / f"{'text' if alike else path.stem}-{reader}-{ids}"
        got = evaluate(wire, examples, ratios, bits, conditions, [reader], mode, slots, seed=whole["seed"], out=place)
        found |= {key_of(row): row for row in got["rows"]}
    return [found[key_of(row)] | {"all": row["f1"]} for row in rows if key_of(row) in found]


def side_by_side(names: list[str], n: int, wire: str, out: Path, parallel: int) -> dict[str, list[Row]]:
    """All rows of the files, by name: a process for each receiver, so many at a time. Exits where one fails."""
    asked_of: dict[str, list[str]] = {}
    for name in names:
        for reader in readers(name):
            asked_of.setdefault(reader, []).append(name)
    logs, failed = out / "logs", []
    logs.mkdir(parents=True, exist_ok=True)

    def one(reader: str, gpu: str | None) -> str | None:
        paths = [str(RESULTS / name) for name in asked_of[reader]]
        words = [
            sys.executable,
            __file__,
            "--work",
            reader,
            str(n),
            wire,
            str(out),
            str(logs / f"{reader}.json"),
            *paths,
        ]
        with (logs / f"{reader}.txt").open("w") as log:
            code = subprocess.run(
                words, stdout=log, stderr=subprocess.STDOUT, check=False, env=processes.environment(gpu, parallel)
            ).returncode
        return None if code == 0 else processes.reason(logs / f"{reader}.txt", code)

    def over(reader: str, why: str | None) -> None:
        failed.extend([f"{reader}: {why}"] if why else [])
        print(f"{reader}: {why or 'measured'}", file=sys.stderr, flush=True)

    processes.run_all(list(asked_of), parallel, [], one, over)
    if failed:
        sys.exit("error: " + "; ".join(failed))
    rows = {reader: json.loads((logs / f"{reader}.json").read_text(encoding="utf-8")) for reader in asked_of}
    return {name: [row for reader in readers(name) for row in rows[reader][name]] for name in names}


def readers(name: str) -> list[str]:
    """Receivers of a quoted file."""
    rows = json.loads((RESULTS / name).read_text(encoding="utf-8"))["rows"]
    return list(dict.fromkeys(row["receiver"] for row in rows))


def compare(rows: list[Row], first: list[Row]) -> list[Row]:
    """Rows with ``first``, what was scored on the same questions, and ``off``, whether that was not met; where it is
    not known, whether what is quoted lies outside of the row's own interval."""
    known = {key_of(row): row["f1"] for row in first}
    return [row | {"first": (one := known.get(key_of(row))), "off": differs(row, one)} for row in rows]


def differs(row: Row, first: float | None) -> bool:
    if first is not None:
        return abs(row["f1"] - first) > NEAR
    low, high = row["f1_ci"]
    return not min(low, row["f1"] - NEAR) <= row["all"] <= max(high, row["f1"] + NEAR)


def show(name: str, rows: list[Row]) -> None:
    """One table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=name, title_justify="left")
    for column in ("receiver", "given", "ratio", "bits", "F1 again", "then, same questions", "quoted", ""):
        table.add_column(column)
    for row in rows:
        figures = [f"{row[key]:.3f}" if row[key] is not None else "" for key in ("f1", "first", "all")]
        ratio, bits = (str(row[key] or "") for key in ("ratio", "bits"))
        table.add_row(row["receiver"], row["condition"], ratio, bits, *figures, "off" if row["off"] else "")
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def main() -> None:
    """The command."""
    if sys.argv[1:2] == ["--work"]:
        reader, n, wire, out, to, *paths = sys.argv[2:]
        found: dict[str, list[Row]] = {}
        for path in map(Path, paths):
            of = json.loads(path.with_name(FIRST.name).read_text(encoding="utf-8"))[path.name]["of"]
            found[path.name] = measure(path, int(n), wire, Path(out), of, reader)
        Path(to).write_text(json.dumps(found), encoding="utf-8")
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--n", type=int, help="questions, the first ones (default: as many as first.json is of)")
    parser.add_argument("--only", nargs="*", help="names of results files (default: all that are quoted)")
    parser.add_argument("--wire", default="sandbox")
    parser.add_argument("--out", type=Path, default=Path("runs/again"))
    parser.add_argument(
        "--parallel", type=int, default=0, help="processes side by side (0: one for each core, 4 at most)"
    )
    parser.add_argument("--keep", nargs="*", metavar="FILE=DIR", help="only make first.json, from whole evaluations")
    given = parser.parse_args()
    if given.keep:
        made = keep(
            {name: Path(where) for name, _, where in (pair.partition("=") for pair in given.keep)}, given.n or 500
        )
        FIRST.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        return
    first = json.loads(FIRST.read_text(encoding="utf-8"))
    n = given.n or first["n"]
    off = 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    measured = side_by_side(given.only or quoted(), n, given.wire, given.out.resolve(), given.parallel or min(cores, 4))
    for name, rows in measured.items():
        rows = compare(rows, first[name]["rows"] if n == first["n"] else [])
        if n != first["n"]:  # a look at a few questions judges nothing
            rows = [row | {"off": False} for row in rows]
        show(name, rows)
        off += sum(row["off"] for row in rows)
    if off:
        sys.exit(f"{off} figures are further than {NEAR} from what was quoted")


if __name__ == "__main__":
    main()
