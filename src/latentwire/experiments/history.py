"""``metrics_history.jsonl``: one line for every finished run of a sweep, and the score that runs are ranked by."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from latentwire.data.files import lines_of
from latentwire.errors import UserError
from latentwire.evaluation.metrics import bootstrap_ci, exact_match
from latentwire.evaluation.results import PREDICTIONS
from latentwire.experiments.settings import RankConfig

HISTORY = "metrics_history.jsonl"
SCORES = (
    "receiver",
    "condition",
    "ratio",
    "bits",
    "n",
    "em",
    "f1",
    "f1_ci",
    "nll",
    "first_token",
    "retention",
    "bytes",
)
"""What a line of the history keeps of each row of a run's results."""
Line = dict[str, Any]


def line_of(result: dict[str, Any], rank: RankConfig, folder: Path) -> Line:
    """The line of a finished run in ``folder``: hash, overrides, score, rows with intervals, seconds, versions."""
    return {
        **{key: result[key] for key in ("hash", "overrides", "evaluation")},
        "score": score(result, rank, folder),
        "rows": [{key: row[key] for key in SCORES} for row in result["rows"]],
        **{key: result[key] for key in ("steps", "seconds", "parameters", "ended", "stopped")},
        "events": [{key: event[key] for key in ("step", "event", "receiver")} for event in result["events"]],
        **{key: result.get(key) for key in ("data", "seed", "versions", "device", "time")},
    }


def chosen(rows: list[dict[str, Any]], rank: RankConfig) -> list[dict[str, Any]]:
    """The rows that a score is the mean of. UserError: what is named was not measured."""
    wanted = {key: value for key in ("receiver", "ratio", "bits") if (value := getattr(rank, key))}
    wanted["condition"] = rank.condition
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    if rows and not found:
        there = sorted({f"{row['receiver']} {row['ratio'] or ''}x {row['bits'] or ''} bits" for row in rows})
        raise UserError(
            f"no row to rank by has {', '.join(f'{key} {value}' for key, value in wanted.items())}; measured were: "
            f"{', '.join(there)}; change rank and run the sweep again, nothing is trained twice"
        )
    return found


def score(result: dict[str, Any], rank: RankConfig, folder: Path) -> dict[str, Any]:
    """``value``, the mean of the chosen rows, None where the run has none; ``interval``, its 95 % bootstrap interval
    over questions for ``f1`` and ``em``, of which single answers are kept, else None."""
    rows = chosen(result["rows"], rank)
    values = [row[rank.metric] for row in rows]
    if not values or None in values:
        return {"metric": rank.metric, "value": None, "interval": None}
    interval = rows[0]["f1_ci"] if rank.metric == "f1" and len(rows) == 1 else None
    if interval is None and rank.metric in ("f1", "em"):
        interval = [round(end, 4) for end in bootstrap_ci(_by_question(rows, rank.metric, folder), result["seed"])]
    return {"metric": rank.metric, "value": round(sum(values) / len(values), 4), "interval": interval}


def _by_question(rows: list[dict[str, Any]], metric: str, folder: Path) -> list[float]:
    """The mean over the rows of what each question scored: one draw of a question is one of all its answers."""
    keys = {tuple(row[key] for key in ("receiver", "condition", "ratio", "bits")) for row in rows}
    found: dict[str, list[float]] = defaultdict(list)
    for text in lines_of(folder / "eval" / PREDICTIONS):
        said = json.loads(text)
        if tuple(said[key] for key in ("receiver", "condition", "ratio", "bits")) in keys:
            right = said["f1"] if metric == "f1" else exact_match(said["prediction"], said["answers"])
            found[said["id"]].append(right)
    return [sum(values) / len(values) for values in found.values()]


def better(line: Line) -> float:
    """A key that sorts the best first; runs without a score come last."""
    value = line["score"]["value"]
    if value is None:
        return float("inf")
    return value if line["score"]["metric"] == "nll" else -value


class History:
    """The file itself. Several processes and machines may add to one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / HISTORY

    def lines(self) -> list[Line]:
        """Every whole line; one that was cut off when its process was killed is left out."""
        found = []
        for text in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []:
            try:
                found.append(json.loads(text))
            except json.JSONDecodeError:
                continue
        return found

    def add(self, line: Line) -> None:
        """Append a run's line, unless the run stands there with the same evaluation."""
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # let go of when the file is closed
            if any(all(old[key] == line[key] for key in ("hash", "evaluation")) for old in self.lines()):
                return
            file.seek(0)
            text = file.read()
            file.write("\n" if text and not text.endswith("\n") else "")  # behind a line that was cut off
            file.write(json.dumps(line) + "\n")
