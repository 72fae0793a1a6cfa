"""Does it show beforehand what a packet will lose? ``python benchmarks/warning.py DIR`` of a whole evaluation.

For every passage of the evaluated questions: how well a receiver reads it back (`latentwire.readback.retell`), beside
what its answers from latents score against those from the text. Articles are parted into two halves: fifths of the
signal, and what is kept in each, are taken from the first and checked on the second. The figures go to
``benchmarks/results/warning.json``, the table to ``docs/results.md`` (``--table`` alone fills it from the file).
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentwire.data.files import lines_of
from latentwire.data.rows import read_examples
from latentwire.data.squad import article, shipped_valid
from latentwire.evaluation.metrics import retention
from latentwire.types import Example

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "warning.json", ROOT / "docs" / "results.md"
BLOCK = re.compile(r"(<!-- warning:begin -->\n).*?(<!-- warning:end -->)", re.DOTALL)
FIFTHS = 5
BACK = (0.1, 0.25)
"""Shares of the packets that fall back to text in the table."""
Scores = dict[tuple, dict[str, float]]


def scores_of(directory: Path) -> Scores:
    """F1 by (receiver, condition, ratio) and question id, at 16 bits."""
    found: Scores = defaultdict(dict)
    for line in lines_of(directory / "predictions.jsonl"):
        said = json.loads(line)
        if said["condition"] in ("text", "none", "latents") and said["bits"] in (None, 16):
            found[said["receiver"], said["condition"], said["ratio"]][said["id"]] = said["f1"]
    return found


def area(signal_N: np.ndarray, lost_N: np.ndarray) -> float | None:
    """How often the signal of a lost question is lower than that of another one (area under the ROC curve)."""
    low, high = int(lost_N.sum()), int((~lost_N).sum())
    if not low or not high:
        return None
    _, which_N, count_U = np.unique(-signal_N, return_inverse=True, return_counts=True)
    ranks_N = (np.cumsum(count_U) - (count_U - 1) / 2)[which_N]  # those alike share their mean rank
    return float((ranks_N[lost_N].sum() - low * (low + 1) / 2) / (low * high))


def judged(signal_N: np.ndarray, scores: dict[str, np.ndarray], first_N: np.ndarray) -> dict[str, Any]:
    """What one signal says about the questions of one receiver at one ratio. All arrays are over questions.

    scores: ``text``, ``none``, ``latents``. first_N: bool, questions of the half that fifths are taken from.
    """
    edges = np.quantile(signal_N[first_N], np.arange(1, FIFTHS) / FIFTHS)
    bin_N = np.searchsorted(edges, signal_N, side="right")
    fifths = []
    for number in range(FIFTHS):
        row: dict[str, Any] = {}
        for half, chosen in (("first", first_N), ("second", ~first_N)):
            mine = chosen & (bin_N == number)
            means = {name: float(scores[name][mine].mean()) if mine.any() else 0.0 for name in scores}
            kept = retention(means["latents"], means["none"], means["text"])
            row[half] = {"n": int(mine.sum()), "retention": None if kept is None else round(kept, 4)}
        mine = signal_N[bin_N == number]
        row["signal"] = round(float(mine.mean()), 4) if len(mine) else None
        fifths.append(row)
    answered = scores["text"] >= 0.5
    lost_N = scores["latents"] < 0.5
    order = np.argsort(signal_N, kind="stable")
    back = {}
    for share in BACK:
        told = np.zeros(len(order), bool)
        told[order[: round(share * len(order))]] = True
        mixed = np.where(told, scores["text"], scores["latents"]).mean()
        # as many packets drawn by luck: the mean over all draws
        luck = share * scores["text"].mean() + (1 - share) * scores["latents"].mean()
        back[str(share)] = {"f1": round(float(mixed), 4), "by_luck": round(float(luck), 4)}
    found = area(signal_N[answered], lost_N[answered])
    return {"fifths": fifths, "area": None if found is None else round(found, 4), "fall_back": back}


def measure(directory: Path, wire_name: str, examples: list[Example], receivers: list[str] | None) -> dict[str, Any]:
    """What the file holds."""
    from latentwire import Wire
    from latentwire.readback import retell

    scores, results = scores_of(directory), json.loads((directory / "results.json").read_text(encoding="utf-8"))
    latents = [key for key in scores if key[1] == "latents" and (receivers is None or key[0] in receivers)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wire = Wire.from_pretrained(wire_name, receivers=list(dict.fromkeys(key[0] for key in latents)), device=device)
    if wire.fingerprint.hex() != results["wire"]["encoder"]:
        raise SystemExit(f"error: {directory} is of encoder {results['wire']['encoder']}, not {wire.fingerprint.hex()}")
    examples = [e for e in examples if e.id in scores[latents[0]]]
    texts = list(dict.fromkeys(e.context for e in examples))
    place = {text: number for number, text in enumerate(texts)}
    which_N = np.array([place[e.context] for e in examples])
    titles = sorted({article(e.id) for e in examples})
    first_N = np.array([titles.index(article(e.id)) % 2 == 0 for e in examples])
    rows = []
    for ratio in sorted({key[2] for key in latents}):
        packets = wire.encode(texts, ratio=ratio)
        for name in [key[0] for key in latents if key[2] == ratio]:
            told = retell(wire, name, packets, texts)
            keys = {"text": (name, "text", None), "none": (name, "none", None), "latents": (name, "latents", ratio)}
            mine = {kind: np.array([scores[key][e.id] for e in examples]) for kind, key in keys.items()}
            for signal in ("right", "likelihood"):
                signal_N = np.array([getattr(one, signal) for one in told])[which_N]
                row = {"receiver": name, "ratio": ratio, "signal": signal}
                row |= {"mean": round(float(np.mean([getattr(one, signal) for one in told])), 4)}
                rows.append(row | judged(signal_N, mine, first_N))
    head = {"encoder": results["wire"]["encoder"], "n": len(examples), "passages": len(texts)}
    return head | {"seed": results["seed"], "rows": rows}


def table(found: dict[str, Any]) -> str:
    """A line for each receiver and ratio."""
    head = ["receiver", "ratio", "tokens right", "area", *(f"fifth {i + 1}" for i in range(FIFTHS))]
    head += [f"F1, {share:.0%} from text (by luck)" for share in BACK]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in found["rows"]:
        if row["signal"] != "right":
            continue
        line = [
            f"`{row['receiver']}`",
            f"{row['ratio']}×",
            f"{row['mean']:.2f}",
            "" if row["area"] is None else f"{row['area']:.2f}",
        ]
        for fifth in row["fifths"]:
            halves = [fifth[half]["retention"] for half in ("first", "second")]
            line.append(" / ".join("" if kept is None else f"{kept:.2f}" for kept in halves))
        back = [row["fall_back"][str(share)] for share in BACK]
        lines.append([*line, *(f"{each['f1']:.3f} ({each['by_luck']:.3f})" for each in back)])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{body}\n\n{found['n']:,} questions of {found['passages']:,} passages, encoder `{found['encoder']}`.\n"


def fill(page: str) -> str:
    """The page with its table made anew; without a file it says so."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else None
    text = "Not measured yet.\n" if found is None else table(found)
    return BLOCK.sub(lambda match: match[1] + text + match[2], page)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="what an evaluation wrote")
    parser.add_argument("--wire", default="sandbox")
    parser.add_argument("--receivers", nargs="*", help="default: all that were evaluated")
    parser.add_argument("--out", type=Path, help="write the figures there instead, and no page")
    parser.add_argument("--table", action="store_true", help="only fill the page from the file")
    given = parser.parse_args()
    if not given.table:
        if given.directory is None:
            parser.error("give the folder of an evaluation, or --table")
        found = measure(given.directory, given.wire, read_examples(shipped_valid()), given.receivers)
        (given.out or RESULTS).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        if given.out:
            return
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
