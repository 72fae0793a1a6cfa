"""What the recipes of the first implementation give today: ``python benchmarks/history.py --data-dir DIR --minutes 6``.

Each config of ``configs/history`` is trained for the same minutes and asked questions kept aside, beside full text and
no context; with what the collapse watch said, and how near the slots' reconstruction came to the text's embeddings.
``side_by_side.py`` says how the runs are made.

    python benchmarks/history.py --data-dir DIR --minutes 6.5 --parallel 3
    python benchmarks/history.py --smoke         (a CPU, no data: two steps each)
    python benchmarks/history.py --table         (docs/methods.md from benchmarks/results/history.json)
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from methods_config import READERS, ROOT, smoke
from methods_table import scores
from side_by_side import Job, command, finish, measured

CONFIGS = ROOT / "configs" / "history"
RECIPES = ("reconstruction", "constant", "ramped")
LAST = 20
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "history.json", ROOT / "docs" / "methods.md"
BLOCK = re.compile(r"(<!-- history:begin -->\n).*?(<!-- history:end -->)", re.DOTALL)


def config(recipe: str, given: argparse.Namespace) -> dict[str, Any]:
    """The training config of one recipe."""
    from latentwire.config import encode, load
    from latentwire.training.config import TrainConfig

    tree = encode(load(CONFIGS / f"{recipe}.yaml", TrainConfig))
    for name, link in tree["wire"]["links"].items():
        link["receiver"] = given.readers[name]
    tree |= {"seed": given.seed, "minutes": given.minutes, "steps": given.steps, "passages": given.passages}
    tree["corpus"] |= {"cache": str(given.out / "cache"), "seed": None} | given.corpus
    if given.smoke:
        tree |= {"passages": 2, "asks": 1, "warmup": 1, "log_every": 1, "eval_every": 1, "device": "cpu"}
        tree["wire"]["encoder"]["d_z"] = 16
    return tree


def jobs(given: argparse.Namespace) -> list[tuple[Path, Job]]:
    """A folder for each recipe, named by all that its figures depend on, and what is to be done in it."""
    from latentwire.config import config_hash

    todo: list[tuple[Path, Job]] = []
    for recipe in RECIPES:
        job: Job = {"name": recipe, "facts": {"name": recipe}, "config": config(recipe, given)}
        job |= {"n": given.n, "data_dir": given.data_dir, "references": recipe == RECIPES[0]}
        todo.append((given.out / f"{recipe}-{config_hash({**job, 'data_dir': None})}", job))
    return todo


def watched(folder: Path) -> dict[str, Any]:
    """What the collapse watch said in a run, its last look at what is kept aside, and how near reconstructed embeddings
    came to the text's at its end (mean cosine of the last lines of text, by receiver)."""
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    looks = [line for line in lines if line["source"] == "dev"]
    text = [line for line in lines if line["source"] == "text"][-LAST:]
    said = json.loads((folder / "trained.json").read_text(encoding="utf-8"))
    near = {
        name: round(mean(line[key] for line in text if key in line), 4)
        for name in READERS
        if any((key := f"{name}/embeddings/cosine") in line for line in text)
    }
    return {"events": said["events"], "ended": said["ended"], "aside": looks[-1] if looks else None, "cosine": near}


def table(found: dict[str, Any]) -> str:
    """A Markdown table of all recipes, under full text and no context."""
    names = list(dict.fromkeys(row["receiver"] for row in found["references"]))
    head = ["recipe", "steps", *(cell for name in names for cell in (f"`{name}` F1 (95 %)", "retention", "cosine"))]
    out = [[*head, "what the watch said"], ["---", *["---:"] * (len(head) - 1), "---"]]
    for condition, words in (("text", "full text"), ("none", "no context")):
        rows = {row["receiver"]: row for row in found["references"] if row["condition"] == condition}
        out.append([words, "", *(cell for name in names for cell in (*scores(rows.get(name)), "")), ""])
    for run in found["runs"]:
        rows = {row["receiver"]: row for row in run["rows"]}
        near = {name: f"{value:.2f}" for name, value in run["cosine"].items()}
        cells = [cell for name in names for cell in (*scores(rows.get(name)), near.get(name, ""))]
        said = ", ".join(sorted({event["event"] for event in run["events"]})) or "nothing"
        out.append([f"`{run['name']}`", f"{run['steps']:,}", *cells, said])
    for name, why in found["failed"].items():
        out.append([f"`{name}`", f"failed: {why}", *[""] * (len(head) - 1)])
    asked = " or ".join(f"{n:,}" for n in found["n"]) or "no"
    note = f"{asked} questions kept aside, {found['minutes']} minutes each, seed {found['seed']}, "
    return "\n".join("| " + " | ".join(row) + " |" for row in out) + f"\n\n{note}{', '.join(found['device'])}.\n"


def fill(markdown: str, results: Path = RESULTS) -> str:
    """The page with its table made anew."""
    text = table(json.loads(results.read_text(encoding="utf-8"))) if results.is_file() else "Not measured yet.\n"
    return BLOCK.sub(lambda match: match[1] + text + match[2], markdown)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = command(__doc__, "history", 1000)
    parser.add_argument("--minutes", type=float, default=6.5, help="of each run")
    parser.add_argument("--passages", type=int, default=128, help="of a step")
    given = parser.parse_args(argv)
    given.out, given.corpus, given.steps = given.out.resolve(), {}, 0
    given.readers = READERS | dict(item.split("=", 1) for item in given.reader)
    given.results = given.results or (given.out / "history.json" if given.smoke else RESULTS)
    if given.smoke:
        smoke(given)
        given.corpus |= {"shortest": 64, "longest": 1280, "stretch": 0.5}
        given.minutes = 0
    return given


def main(argv: list[str] | None = None) -> int:
    """The command; exit code 1 if a run failed."""
    given = arguments(argv)
    if given.table:
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    todo = jobs(given)

    def gathered(failed: dict[str, str]) -> dict[str, Any]:
        of = {"minutes": given.minutes, "passages": given.passages, "failed": failed}
        found: dict[str, Any] = measured(todo, given) | of
        folders = {job["name"]: folder for folder, job in todo}
        for run in found["runs"]:
            run |= watched(folders[run["name"]])
        return found

    return finish(given, todo, None, gathered, table)


if __name__ == "__main__":
    sys.exit(main())
