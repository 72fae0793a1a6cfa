"""After how many questions a packet has paid for its encoding: ``python benchmarks/break_even.py [--out FILE]``.

In operations (counted by torch while the code runs) and in seconds (the least of several rounds), for each receiver,
ratio and length of the context. From text, a question costs reading the context and answering behind it; from a packet,
the link and answering behind latents. Encoding is paid once for all questions and receivers. Against a server that
keeps the text's keys and values there is nothing to read again: then only the answer itself is cheaper behind fewer
positions, and what a packet saves is room (``kept_bytes``). On a CPU attention's own operations are not counted.
``--fill`` puts the table of ``benchmarks/results/break-even-cpu.json`` into docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from latentwire import Wire, __version__
from latentwire.data.progress import progress
from latentwire.data.rows import read_examples
from latentwire.data.squad import shipped_valid
from latentwire.evaluation.items import autocast, wait
from latentwire.receivers import Receiver
from latentwire.receivers.decode import generate
from latentwire.receivers.receiver import pad
from latentwire.types import Latents, Prefix

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "break-even-cpu.json", ROOT / "docs" / "results.md"
BLOCK = re.compile(r"(<!-- even:begin -->\n).*?(<!-- even:end -->)", re.DOTALL)
LENGTHS = (64, 128, 256, 512, 896)
QUESTION, ANSWER = 24, 8
"""Tokens of a question with its anchor, and of an answer."""


class Case:
    """Texts of one length, for one receiver at one ratio."""

    def __init__(self, wire: Wire, name: str, ratio: int, ids: list[list[int]]) -> None:
        self.wire, self.name, self.ratio, self.ids = wire, name, ratio, ids
        self.receiver: Receiver = wire.get_receiver(name)
        self.texts = [self.receiver.tokenizer.decode(row) for row in ids]
        self.tail = (self.receiver.prompt.question_ids(["Who led the expedition to the pole that year? "])[0] * 3)[
            :QUESTION
        ]

    def encode(self) -> Latents:
        """Text to latents, tokenising included."""
        with autocast(self.wire.device):
            return self.wire.encode_latents(self.texts, self.ratio)

    def link(self, latents: Latents) -> Prefix:
        """Latents to keys and values."""
        with autocast(self.wire.device):
            return self.wire.prefix(self.name, latents)

    def read(self) -> Prefix:
        """Text to keys and values."""
        mask_BT, ids_BT = pad(self.ids, self.receiver.prompt.pad_id, self.receiver.device)
        return self.receiver.read(ids_BT, mask_BT, self.receiver.head_for(len(self.ids)))

    def ask(self, prefix: Prefix) -> None:
        """A question behind either, and its answer."""
        generate(self.receiver, prefix, [self.tail] * len(self.ids), ANSWER, min_new_tokens=ANSWER)

    def bytes_of(self, prefix: Prefix) -> float:
        """Bytes of keys and values that a server would keep for a context."""
        return sum(k.nbytes + v.nbytes for k, v in prefix.kv) / len(self.ids)


def cost(work: Callable[[], Any], device: torch.device, rounds: int, texts: int) -> tuple[float, float]:
    """Operations and seconds of a text."""
    with FlopCounterMode(display=False) as counter:
        work()
    took = []
    for _ in range(rounds):
        wait(device)
        begun = time.perf_counter()
        work()
        wait(device)
        took.append(time.perf_counter() - begun)
    return counter.get_total_flops() / texts, min(took) / texts


def row(case: Case, length: int, rounds: int) -> dict[str, Any]:
    """All costs of a case and after how many questions they are even."""
    device, n = case.wire.device, len(case.ids)
    latents = case.encode()
    behind = {"text": case.read(), "latents": case.link(latents)}
    works: dict[str, Callable[[], Any]] = {
        "encode": case.encode,
        "link": lambda: case.link(latents),
        "read": case.read,
        "ask_text": lambda: case.ask(behind["text"]),
        "ask_latents": lambda: case.ask(behind["latents"]),
    }
    costs = {key: cost(work, device, rounds, n) for key, work in works.items()}
    found: dict[str, Any] = {"receiver": case.name, "ratio": case.ratio, "tokens": length, "batch": n}
    for place, unit in enumerate(("flops", "seconds")):
        of = {key: each[place] for key, each in costs.items()}
        saved = of["read"] + of["ask_text"] - of["link"] - of["ask_latents"]
        found[unit] = {key: float(f"{value:.4g}") for key, value in of.items()}
        found[f"even_after_{unit}"] = round(of["encode"] / saved, 2) if saved > 0 else None
    return found | {"kept_bytes": {key: round(case.bytes_of(prefix)) for key, prefix in behind.items()}}


def table(found: dict[str, Any]) -> str:
    """Markdown: for each receiver and length of the context, questions at each ratio, and room that is saved."""
    rows = {(row["receiver"], row["tokens"], row["ratio"]): row for row in found["rows"]}
    ratios = sorted({ratio for _, _, ratio in rows})
    head = ["receiver", "tokens", *(f"{ratio}×" for ratio in ratios), *(f"{ratio}×, room" for ratio in ratios)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, tokens in dict.fromkeys((name, tokens) for name, tokens, _ in rows):
        own = [rows[name, tokens, ratio] for ratio in ratios]
        cells = [f"{told(row['even_after_flops'])} / {told(row['even_after_seconds'])}" for row in own]
        room = [f"{row['kept_bytes']['text'] / row['kept_bytes']['latents']:.1f}" for row in own]
        lines.append([f"`{name}`", str(tokens), *cells, *room])
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    where = f"{found['device']}, {found['threads']} threads, torch {found['versions']['torch']}"
    return f"{body}\n{found['rows'][0]['batch']} texts at a time; {where}; encoder `{found['wire']}`.\n"


def told(questions: float | None) -> str:
    """How many questions it takes; "never" where a question costs as much behind latents as behind text."""
    return "never" if questions is None else f"{questions:.1f}"


def fill(page: str) -> str:
    """The page with its table made anew."""
    return BLOCK.sub(lambda match: match[1] + table(json.loads(RESULTS.read_text(encoding="utf-8"))) + match[2], page)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--wire", default="sandbox")
    parser.add_argument("--lengths", type=int, nargs="*", default=LENGTHS, help="tokens of the context")
    parser.add_argument("--batch", type=int, default=8, help="texts side by side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    parser.add_argument("--fill", action="store_true", help="only put the table into docs/results.md")
    given = parser.parse_args()
    if given.fill:
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wire = Wire.from_pretrained(given.wire, device=device)
    text = " ".join(dict.fromkeys(example.context for example in read_examples(shipped_valid())))
    rows, total = [], len(wire.receivers) * len(wire.ratios) * len(given.lengths)
    with torch.no_grad(), progress("cases", total) as show:
        for name in wire.receivers:
            ids = wire.get_receiver(name).prompt.ids([text[: 8 * given.batch * max(given.lengths)]])[0]
            for length in given.lengths:
                texts = [ids[start * length : (start + 1) * length] for start in range(given.batch)]
                for ratio in wire.ratios:
                    rows.append(row(Case(wire, name, ratio, texts), length, given.rounds))
                    show(len(rows), f"{name} {ratio}x {length} tokens")
    facts = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": {"latentwire": __version__, "torch": torch.__version__},
        "wire": wire.fingerprint.hex(),
        "question": QUESTION,
        "answer": ANSWER,
        "rows": rows,
    }
    print(json.dumps(facts if len(rows) < 4 else [r for r in rows if r["tokens"] == max(given.lengths)], indent=1))
    if given.out:
        given.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
