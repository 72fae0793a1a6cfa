"""What a wire loses on which questions: ``python benchmarks/seen_unseen.py WIRE --data-dir DIR``.

Divergence of a receiver's answers from the same receiver with the text, in nats a token, for people's questions that
wire and readers were trained on, people's questions kept aside, and questions made from articles whose made questions
the readers have seen (even ones) or not (odd ones). Where seen and unseen lie far apart, more questions are missing;
where both are high, more training on their kind is.

Writes JSON: by receiver, ratio and kind of question.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from random import Random

import torch

from latentwire.data.rows import data_dir
from latentwire.data.squad import load_split
from latentwire.data.text import iter_articles
from latentwire.errors import UserError
from latentwire.objectives import ObjectiveConfig
from latentwire.objectives.answer import AnswerConfig
from latentwire.objectives.kl import KLConfig
from latentwire.training.config import CorpusConfig, TrainConfig
from latentwire.training.corpus import made_questions, question_store
from latentwire.training.setup import assemble
from latentwire.types import Example
from latentwire.wire import Wire

ASKS = 4
"""Questions of each passage; passages with fewer take no part."""


def groups(data: Path, passages: int, seed: int) -> dict[str, list[Example]]:
    """Questions of each kind, of so many passages."""

    def some(rows: list[Example]) -> list[Example]:
        by_context: dict[str, list[Example]] = {}
        for row in rows:
            by_context.setdefault(row.context, []).append(row)
        fitting = [rows[:ASKS] for rows in by_context.values() if len(rows) >= ASKS]
        return [row for rows in Random(seed).sample(fitting, min(passages, len(fitting))) for row in rows]

    # several times as many as are taken, so that they come from many articles
    corpus = CorpusConfig(made=20 * passages, threads=1)
    made = {lines: made_questions(iter_articles(data, lines=lines), corpus, seed) for lines in ("even", "odd")}
    return {
        "people, trained on": some(load_split(data, "train")),
        "people, kept aside": some(load_split(data, "dev")),
        "made, known to the readers": some(made["even"]),
        "made, not known to the readers": some(made["odd"]),
    }


def main() -> None:
    """The command."""
    try:
        _main()
    except UserError as error:
        sys.exit(f"error: {error}")


@torch.no_grad()
def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("wire")
    parser.add_argument("--ratio", type=int, nargs="+", default=[4, 8], help="source tokens per latent")
    parser.add_argument("--receiver", nargs="+", help="all of the wire's if left out")
    parser.add_argument("--passages", type=int, default=100, help="of each kind")
    parser.add_argument(
        "--asked", type=int, default=40, help="tokens of a question with its answer; longer ones take no part"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", help="folder with training data (or LATENTWIRE_DATA)")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wire = Wire.from_pretrained(given.wire, device=device, receivers=given.receiver)
    prompts = {name: wire.frozen[name].prompt for name in wire.receivers}
    objectives: dict[str, ObjectiveConfig] = {"answer": AnswerConfig(), "kl": KLConfig()}
    corpus = CorpusConfig(longest=wire.encoder.config.window, row=60, asked=given.asked, threads=1, dev=8 * ASKS)
    config = TrainConfig(objectives=objectives, corpus=corpus, asks=ASKS, passages=8, compile="never")
    rows = []
    for kind, examples in groups(data_dir(given.data_dir), given.passages, given.seed).items():
        store = question_store(examples, wire.encoder, prompts, corpus)
        run = assemble(config, wire, wire.receivers, {"dev": store}, device)
        wire.eval()
        batches = run.stores["dev"]
        assert batches is not None
        luck_BR = ((torch.arange(ASKS, device=device) + 0.5) / ASKS).expand(8, -1)
        for ratio in given.ratio:
            found: dict[str, list[float]] = {}
            for start in range(0, store.size - 7, 8):
                generator = torch.Generator(device).manual_seed(given.seed)
                batch = batches.at(torch.arange(start, start + 8, device=device), luck_BR)
                _, metrics = run.step(batch, "questions", ratio, None, "context", 1.0, generator)
                for name in wire.receivers:
                    found.setdefault(name, []).append(float(metrics[f"{name}/answer/kl"]))
            for name, each in found.items():
                row = {"receiver": name, "ratio": ratio, "questions": kind, "divergence": sum(each) / len(each)}
                rows.append(row | {"divergence": round(row["divergence"], 4), "passages": 8 * len(each)})
                print(json.dumps(rows[-1]), flush=True)
    facts = {"encoder": wire.fingerprint.hex(), "seed": given.seed, "device": device.type, "torch": torch.__version__}
    if given.out:
        whole = {**facts, "python": platform.python_version(), "rows": rows}
        given.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
