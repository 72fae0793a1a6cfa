"""What is kept of which answers: ``python benchmarks/fidelity.py DIR``, from what an evaluation wrote.

Answers are told apart by what they are (a date, a number, a name, something else), by their words, and by where in the
text they stand. For each group: F1 from text, from no context and from latents, and retention. The figures go to
``benchmarks/results/fidelity.json``, the table to ``docs/results.md`` (``--table`` alone fills it from the file).
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from latentwire.data.cloze import MONTHS
from latentwire.data.files import lines_of
from latentwire.data.rows import read_examples
from latentwire.data.squad import shipped_valid
from latentwire.evaluation.metrics import retention
from latentwire.types import Example

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "fidelity.json", ROOT / "docs" / "results.md"
BLOCK = re.compile(r"(<!-- fidelity:begin -->\n).*?(<!-- fidelity:end -->)", re.DOTALL)
DATE = re.compile(rf"\b(?:{MONTHS})\b|^(?:in |the )?(?:1\d{{3}}|20[01]\d)s?$")
GROUPS = {
    "what": ("date", "number", "name", "other"),
    "words": ("1", "2-3", "4 and more"),
    "place": ("first third", "second third", "last third"),
}


def what(answer: str) -> str:
    """``date``: a month or a year. ``number``: other digits. ``name``: words of substance begin with a capital."""
    if DATE.search(answer):
        return "date"
    if any(c.isdigit() for c in answer):
        return "number"
    words = [word for word in re.findall(r"[^\W\d_][\w'’-]*", answer) if len(word) > 3 or word[0].isupper()]
    return "name" if words and all(word[0].isupper() for word in words) else "other"


def words(answer: str) -> str:
    """How many words an answer has."""
    count = len(answer.split())
    return GROUPS["words"][0 if count == 1 else 1 if count < 4 else 2]


def place(example: Example) -> str:
    """Where in its text the answer stands first."""
    share = max(example.context.find(example.gold), 0) / max(len(example.context), 1)
    return GROUPS["place"][min(int(3 * share), 2)]


def groups_of(example: Example) -> dict[str, str]:
    """The group of an example under each heading."""
    return {"what": what(example.gold), "words": words(example.gold), "place": place(example)}


def fidelity(directory: Path, examples: list[Example]) -> dict[str, Any]:
    """What the file holds."""
    results = json.loads((directory / "results.json").read_text(encoding="utf-8"))
    known = {example.id: groups_of(example) for example in examples}
    scores: dict[tuple, list[float]] = defaultdict(list)
    for line in lines_of(directory / "predictions.jsonl"):
        said = json.loads(line)
        if said["condition"] in ("text", "none", "latents") and said["bits"] in (None, 16):
            for heading, group in known[said["id"]].items():
                scores[said["receiver"], said["condition"], said["ratio"], heading, group].append(said["f1"])
    mean = {key: sum(each) / len(each) for key, each in scores.items()}
    rows = []
    for (receiver, condition, ratio, heading, group), value in mean.items():
        if condition == "latents":
            full, none = (mean[receiver, other, None, heading, group] for other in ("text", "none"))
            kept = retention(value, none, full)
            n = len(scores[receiver, condition, ratio, heading, group])
            row = {"receiver": receiver, "ratio": ratio, "heading": heading, "group": group, "n": n}
            row |= {"text": round(full, 4), "latents": round(value, 4)}
            rows.append(row | {"retention": None if kept is None else round(kept, 4)})
    head = {"encoder": results["wire"]["encoder"], "n": results["data"]["n"], "mode": results["mode"]}
    return head | {"seed": results["seed"], "rows": rows}


def table(found: dict[str, Any]) -> str:
    """A line for each group: questions, F1 from text, and what latents keep of it at each ratio, by receiver."""
    cells = {(row["receiver"], row["ratio"], row["heading"], row["group"]): row for row in found["rows"]}
    receivers = list(dict.fromkeys(row["receiver"] for row in found["rows"]))
    ratios = sorted({row["ratio"] for row in found["rows"]})
    head = ["answers", "n"]
    for receiver in receivers:
        head += [f"`{receiver}` text", *(f"{ratio}×" for ratio in ratios)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for heading, groups in GROUPS.items():
        for group in groups:
            first = cells.get((receivers[0], ratios[0], heading, group))
            if first is None:
                continue
            line = [f"{group} word{'s' if group != '1' else ''}" if heading == "words" else group, f"{first['n']:,}"]
            for receiver in receivers:
                mine = [cells[receiver, ratio, heading, group] for ratio in ratios]
                line.append(f"{mine[0]['text']:.2f}")
                line += ["" if row["retention"] is None else f"{row['retention']:.2f}" for row in mine]
            lines.append(line)
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    origin = f"{found['n']:,} questions, {found['mode']} mode, seed {found['seed']}, encoder `{found['encoder']}`."
    return f"{body}\n\n{origin}\n"


def fill(page: str, found: dict[str, Any]) -> str:
    """The page with its table made anew."""
    return BLOCK.sub(lambda match: match[1] + table(found) + match[2], page)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="what an evaluation wrote")
    parser.add_argument("--out", type=Path, help="write the figures there instead, and no page")
    parser.add_argument("--table", action="store_true", help="only fill the page from the file")
    given = parser.parse_args()
    if not given.table:
        if given.directory is None:
            parser.error("give the folder of an evaluation, or --table")
        found = fidelity(given.directory, read_examples(shipped_valid()))
        (given.out or RESULTS).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        if given.out:
            return
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
