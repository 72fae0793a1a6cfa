"""One question, three documents: ``python benchmarks/composition.py [--wire WIRE] [--n 500] [--out FILE]``.

Each question is asked with its own document among two of other articles, at each place in turn: from three packets
behind one another, from the three texts behind one another, from its own packet and its own text alone, from three
packets of other articles, and from nothing. ``best``: of the three, the one alone behind which the receiver finds the
question likeliest is read (``Reading.sifted``); ``right``: how often that is its own. ``kept``: what the gain over
nothing is with three, as a share of the gain with the right one alone.
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
from latentwire.receivers.forced import likelihoods
from latentwire.receivers.receiver import pad
from latentwire.types import Example, Prefix

DOCUMENTS = 3


def neighbours(examples: list[Example], seed: int, near: bool = False) -> list[list[str]]:
    """The documents of each question, its own at place ``number % DOCUMENTS``, the others of other articles, or if
    ``near`` of the same one, as far as it has others."""
    rng, found = random.Random(seed), []
    of = {example.context: article(example.id) for example in examples}
    for number, example in enumerate(examples):
        rest = {text: title == article(example.id) for text, title in of.items() if text != example.context}
        others = [text for text, same in rest.items() if not same]
        if len(others) < DOCUMENTS - 1:
            raise SystemExit(f"error: {DOCUMENTS} documents of different articles are needed; ask more questions (--n)")
        beside = [text for text, same in rest.items() if same and near]
        row = rng.sample(beside, min(DOCUMENTS - 1, len(beside)))
        row += rng.sample(others, DOCUMENTS - 1 - len(row))
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
    def sifted(self, rows: list[list[str]], packets: dict[str, Any] | None, slots: int | None) -> list[list[str]]:
        """Of each row the one text that its question goes with, from packets or from the texts themselves."""
        questions = [e.question for e in self.examples]
        if packets is not None:
            text_of = {id(packet): text for text, packet in packets.items()}
            reading = self.wire.receiver(self.name)
            kept = reading.sifted([[packets[text] for text in row] for row in rows], questions, 1, slots)
            return [[text_of[id(packet)] for packet in row] for row in kept]
        tails, said = self.receiver.prompt.question_ids(questions), []
        for place in range(DOCUMENTS):
            column: list[float] = []
            for start in range(0, len(rows), self.batch):
                part = slice(start, start + self.batch)
                prefix = self.prefix([[row[place]] for row in rows[part]], None, None)
                column += likelihoods(self.receiver, prefix, tails[part])
            said.append(column)
        return [[row[max(range(DOCUMENTS), key=lambda p: said[p][number])]] for number, row in enumerate(rows)]

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
    documents = neighbours(examples, given.seed, given.near)
    texts = sorted({text for row in documents for text in row}, key=len)
    own, none = [[e.context] for e in examples], [[] for _ in examples]
    wrong = strangers(examples, given.seed)
    rows: list[dict[str, Any]] = []
    packets = {
        ratio: dict(zip(texts, wire.encode(texts, ratio=ratio), strict=True)) for ratio in given.ratios
    }  # fmt: skip
    with progress("asking", len(wire.receivers) * (4 + 4 * len(given.ratios))) as show:
        for name in wire.receivers:
            asked = Asked(wire, name, examples, documents, given.batch)
            sides: list[tuple[str, int | None, list[list[str]]]] = [
                ("none", None, none), ("text", None, own), (f"text of {DOCUMENTS}", None, documents),
                (f"text, best of {DOCUMENTS}", None, documents),
            ]  # fmt: skip
            for ratio in given.ratios:
                sides += [
                    ("latents", ratio, own),
                    (f"latents of {DOCUMENTS}", ratio, documents),
                    (f"latents, best of {DOCUMENTS}", ratio, documents),
                    ("wrong", ratio, wrong),
                ]
            for condition, ratio, of in sides:
                if condition in given.skip:
                    continue
                held, right = packets[ratio] if ratio else None, None
                if ", best" in condition:
                    of = asked.sifted(of, held, given.slots)
                    right = round(sum(row == alone for row, alone in zip(of, own, strict=True)) / len(of), 4)
                got = asked.scores(of, held, given.slots)
                low, high = bootstrap_ci(got, seed=given.seed)
                row: dict[str, Any] = {"receiver": name, "condition": condition, "ratio": ratio, "n": len(got)}
                row |= {} if right is None else {"right": right}
                row |= {"f1": round(sum(got) / len(got), 4), "f1_ci": [round(low, 4), round(high, 4)]}
                rows.append(row | {"kept": kept(rows, row)})
                show(len(rows), f"{name}, {condition}, F1 {row['f1']:.3f}")
    return {
        "encoder": wire.fingerprint.hex(),
        "n": len(examples),
        "slots": given.slots,
        "near": given.near,
        "rows": rows,
    }


def kept(rows: list[dict[str, Any]], row: dict[str, Any]) -> float | None:
    """The gain over nothing with three documents as a share of the gain with the right one alone."""
    kind, _, many = row["condition"].replace(", best", "").partition(" of ")
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
    parser.add_argument(
        "--skip", nargs="*", default=[], metavar="CONDITION", help="not to be asked, as the table has it"
    )
    parser.add_argument("--near", action="store_true", help="the other documents are of the same article")
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
        print(f"{row['receiver']:8}{row['condition']:19}{row['ratio'] or '':>3}  F1 {row['f1']:.3f}{share}")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
