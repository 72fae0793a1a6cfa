"""One question, three documents: ``python benchmarks/composition.py [--wire WIRE] [--n 500] [--out FILE]``.

Each question is asked with its own document among two of other articles, at each place in turn: from three packets
behind one another, from the three texts behind one another, from its own packet and its own text alone, from three
packets of other articles, and from nothing. ``kept``: what the gain over nothing is with three, as a share of the gain
with the right one alone.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch

from latentwire import Wire
from latentwire.data.progress import progress
from latentwire.data.rows import read_examples
from latentwire.data.squad import article, shipped_valid
from latentwire.environment import environment
from latentwire.evaluation.metrics import bootstrap_ci, f1
from latentwire.receivers.decode import generate
from latentwire.receivers.receiver import pad
from latentwire.types import Example, Prefix

DOCUMENTS = 3


def neighbours(examples: list[Example], seed: int) -> list[list[str]]:
    """The documents of each question, its own at place ``number % DOCUMENTS``, the others of other articles."""
    rng, found = random.Random(seed), []
    of = {example.context: article(example.id) for example in examples}
    for number, example in enumerate(examples):
        others = [text for text, title in of.items() if title != article(example.id)]
        if len(others) < DOCUMENTS - 1:
            raise SystemExit(f"error: {DOCUMENTS} documents of different articles are needed; ask more questions (--n)")
        row = rng.sample(others, DOCUMENTS - 1)
        row.insert(number % DOCUMENTS, example.context)
        found.append(row)
    return found


def strangers(examples: list[Example], seed: int) -> list[list[str]]:
    """For each question as many documents of other articles."""
    rng, of = random.Random(seed + 1), {example.context: article(example.id) for example in examples}
    return [
        rng.sample(others, min(DOCUMENTS, len(others)))
        for example in examples
        for others in [[text for text, title in of.items() if title != article(example.id)]]
    ]


class Asked:
    """Questions with their documents, answered by one receiver in batches."""

    def __init__(self, wire: Wire, name: str, examples: list[Example], documents: list[list[str]], batch: int) -> None:
        self.wire, self.receiver, self.name = wire, wire.get_receiver(name), name
        self.examples, self.documents, self.batch = examples, documents, batch

    def prefix(self, rows: list[list[str]], packets: dict[str, Any] | None, slots: int | None) -> Prefix:
        """From packets of these texts, or from the texts themselves; of rows without any, the head alone."""
        receiver = self.receiver
        if packets is not None:
            first, *behind = self.wire.columns([[packets[text] for text in row] for row in rows])
            return self.wire.prefix(self.name, first, "context", slots, behind=behind)
        ids = [receiver.prompt.contexts_ids(row) for row in rows]
        mask_BT, ids_BT = pad(ids, receiver.prompt.pad_id, receiver.device)
        return receiver.read(ids_BT, mask_BT, receiver.head_for(len(rows)))

    @torch.no_grad()
    def scores(self, rows: list[list[str]], packets: dict[str, Any] | None, slots: int | None) -> list[float]:
        """F1 of every question behind its row of texts."""
        tails, found = self.receiver.prompt.question_ids([e.question for e in self.examples]), []
        for start in range(0, len(rows), self.batch):
            part = slice(start, start + self.batch)
            said = generate(self.receiver, self.prefix(rows[part], packets, slots), tails[part]).texts
            found += [f1(text, e.answers) for text, e in zip(said, self.examples[part], strict=True)]
        return found


def measure(wire: Wire, examples: list[Example], given: argparse.Namespace) -> dict[str, Any]:
    """What the file holds."""
    documents = neighbours(examples, given.seed)
    texts = sorted({text for row in documents for text in row}, key=len)
    own, none = [[e.context] for e in examples], [[] for _ in examples]
    wrong = strangers(examples, given.seed)
    rows: list[dict[str, Any]] = []
    packets = {
        ratio: dict(zip(texts, wire.encode(texts, ratio=ratio), strict=True)) for ratio in given.ratios
    }  # fmt: skip
    with progress("asking", len(wire.receivers) * (3 + 3 * len(given.ratios))) as show:
        for name in wire.receivers:
            asked = Asked(wire, name, examples, documents, given.batch)
            sides: list[tuple[str, int | None, list[list[str]]]] = [
                ("none", None, none), ("text", None, own), (f"text of {DOCUMENTS}", None, documents)
            ]  # fmt: skip
            for ratio in given.ratios:
                sides += [
                    ("latents", ratio, own),
                    (f"latents of {DOCUMENTS}", ratio, documents),
                    ("wrong", ratio, wrong),
                ]
            for condition, ratio, of in sides:
                got = asked.scores(of, packets[ratio] if ratio else None, given.slots)
                low, high = bootstrap_ci(got, seed=given.seed)
                row: dict[str, Any] = {"receiver": name, "condition": condition, "ratio": ratio, "n": len(got)}
                row |= {"f1": round(sum(got) / len(got), 4), "f1_ci": [round(low, 4), round(high, 4)]}
                rows.append(row | {"kept": kept(rows, row)})
                show(len(rows), f"{name}, {condition}, F1 {row['f1']:.3f}")
    return {"encoder": wire.fingerprint.hex(), "n": len(examples), "slots": given.slots, "rows": rows}


def kept(rows: list[dict[str, Any]], row: dict[str, Any]) -> float | None:
    """The gain over nothing with three documents as a share of the gain with the right one alone."""
    kind, _, many = row["condition"].partition(" of ")
    if not many:
        return None
    mine = {(r["condition"], r["ratio"]): r["f1"] for r in rows if r["receiver"] == row["receiver"]}
    none, alone = mine["none", None], mine[kind, row["ratio"]]
    return None if alone <= none else round((row["f1"] - none) / (alone - none), 4)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--wire", default="sandbox")
    parser.add_argument("--receivers", nargs="*", default=["llama", "qwen2"])
    parser.add_argument("--ratios", type=int, nargs="*", default=[4, 8])
    parser.add_argument("--slots", type=int, help="K/V positions for each latent (default: the links' first)")
    parser.add_argument("--n", type=int, default=500, help="questions, drawn by the seed")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wire = Wire.from_pretrained(given.wire, receivers=given.receivers, device=device)
    examples = read_examples(shipped_valid())
    examples = random.Random(given.seed).sample(examples, min(given.n, len(examples)))
    found = measure(wire, examples, given) | {"seed": given.seed, **environment(wire.device)}
    for row in found["rows"]:
        share = "" if row["kept"] is None else f"  kept {row['kept']:.2f}"
        print(f"{row['receiver']:8}{row['condition']:14}{row['ratio'] or '':>3}  F1 {row['f1']:.3f}{share}")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
