"""Answering in batches against one question after another: ``python benchmarks/eval_speed.py [--out FILE]``.

Both sides answer and judge the same questions with the functions of ``latentwire eval``, from passages that were read
before the clock starts. What differs is only how many questions a forward pass has. Sides take turns, and their answers
are compared (on a GPU in bfloat16 a near tie may fall the other way).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch

from latentwire import Wire, __version__
from latentwire.codecs import by_bits
from latentwire.conditions import Condition
from latentwire.data.progress import progress
from latentwire.data.rows import read_examples
from latentwire.data.squad import shipped_valid
from latentwire.evaluation.decoding import MAX_NEW_TOKENS
from latentwire.evaluation.given import Tokens
from latentwire.evaluation.giving import Clock, Terms, giving, most_positions, read_tails
from latentwire.evaluation.items import Encoded, Items, encode_all, wait
from latentwire.evaluation.measure import PARTS, judge
from latentwire.receivers.decode import generate
from latentwire.types import Prefix

CONDITIONS = ("text", "latents")


class Side:
    """Questions in groups, each behind the passages of its group, read once."""

    def __init__(self, wire: Wire, receiver: str, condition: str, items: Items, encoded: Encoded, size: int) -> None:
        """size: questions of a group."""
        self.receiver = wire.get_receiver(receiver)
        self.tokens = Tokens(self.receiver, items)
        terms = Terms(items, self.tokens, encoded, 1, by_bits(16), size, 0)
        given = giving(wire, self.receiver, Condition.known()[condition](), terms)
        clock = Clock(wire.device, dict.fromkeys(PARTS, 0.0))
        self.groups: list[tuple[Prefix, list[list[int]], list[int]]] = []
        for numbers in items.batches(size, given.lengths, most_positions(self.receiver)):
            prefix, rows, tails, _ = given.read(numbers, clock)
            self.groups.append((prefix.take(torch.tensor(rows, device=wire.device)), tails, numbers))

    @torch.no_grad()
    def answers(self) -> dict[int, str]:
        """What is said to each question."""
        said: dict[int, str] = {}
        for prefix, tails, numbers in self.groups:
            read, last = read_tails(self.receiver, prefix, tails), [tail[-1] for tail in tails]
            found = generate(self.receiver, read, [[token] for token in last], MAX_NEW_TOKENS).texts
            judge(self.receiver, read, last, [self.tokens.answers[number][0] for number in numbers])
            said |= dict(zip(numbers, found, strict=True))
        return said


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--wire", default="sandbox")
    parser.add_argument("--receiver", default="llama")
    parser.add_argument("--n", type=int, default=200, help="questions of squad/valid, drawn by the seed")
    parser.add_argument("--ratio", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=0, help="questions of a batch (0: 64 on a CPU, all on a GPU)")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wire = Wire.from_pretrained(given.wire, device=device, receivers=[given.receiver])
    examples = random.Random(given.seed).sample(read_examples(shipped_valid()), given.n)
    items = Items.of(wire, examples, "context")
    encoded = encode_all(wire, items, given.ratio, 64)
    batch = given.batch or (64 if device == "cpu" else given.n)
    rows = []
    with torch.no_grad(), progress("passes", 4 * len(CONDITIONS)) as show:
        for name in CONDITIONS:
            sizes = {"batched": batch, "one_by_one": 1}
            sides = {key: Side(wire, given.receiver, name, items, encoded, size) for key, size in sizes.items()}
            seconds: dict[str, list[float]] = {key: [] for key in sides}
            said: dict[str, dict[int, str]] = {}
            sides["batched"].answers()  # warms up
            for turn, key in enumerate(("batched", "one_by_one") * 2, 1):
                wait(wire.device)
                begun = time.monotonic()
                said[key] = sides[key].answers()
                wait(wire.device)
                seconds[key].append(round(time.monotonic() - begun, 2))
                show(4 * CONDITIONS.index(name) + turn, key)
            same = sum(said["batched"][number] == answer for number, answer in said["one_by_one"].items())
            faster = sum(seconds["one_by_one"]) / sum(seconds["batched"])
            rows.append({"condition": name, "seconds": seconds, "times_faster": round(faster, 2), "same_answers": same})
    facts = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": {"latentwire": __version__, "torch": torch.__version__},
        **{key: getattr(given, key) for key in ("wire", "receiver", "n", "ratio", "seed")},
        "batch": batch,
        "passages": len(items.texts),
        "rows": rows,
    }
    print(json.dumps(facts, indent=1))
    if given.out:
        given.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
