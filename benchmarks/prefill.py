"""Time to the first token and to the 32nd, from text and from latents: ``python benchmarks/prefill.py [--out FILE]``.

Both sides in one run, on whatever device there is, for each receiver, length of the context and number of contexts side
by side. From text, the receiver reads the context by transformers' own forward with torch's causal kernel; from latents
the link makes keys and values of what the encoder left. The question behind either (32 tokens) and the tokens said are
read by the same code, on a GPU by recorded passes (``--no-graphs``: ordinary ones) on both sides. What encoding takes
stands beside it, for those who have no packet yet.

``--shape large``: receivers of the shapes of Llama 3.1 8B and Qwen2.5 7B and an encoder of that of Llama 3.2 1B, with
random weights (see ``shapes.py``). ``--shape sandbox``: the wire that comes along. Tokenising is on neither side.
Points that do not fit into memory, or into a receiver's window, are in the file as such.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shapes import attempt, facts, fresh_peak, peak_gib, sync, wire_of
from torch import Tensor
from transformers import DynamicCache

from latentwire import Wire
from latentwire.encoders.base import Source, cut, fill
from latentwire.encoders.lexicon import NOWHERE
from latentwire.evaluation.items import autocast
from latentwire.link import RESERVE
from latentwire.receivers import Receiver
from latentwire.receivers.attention import NAME
from latentwire.receivers.decode import steps
from latentwire.types import Latents, Prefix

LENGTHS, BATCHES, RATIOS = (256, 1024, 4096, 16384), (1, 32), (4, 8)
QUESTION, TOKENS, PIECES = 32, 32, 64
"""Tokens of a question with its anchor; tokens said; windows of the encoder side by side."""
LARGE = ("llama8b", "qwen7b")


def read_text(receiver: Receiver, ids_BT: Tensor) -> Prefix:
    """Head and context read by transformers' forward: no padding, so its causal kernel serves and no mask is made."""
    head = torch.tensor(receiver.prompt.head_ids(), device=ids_BT.device).expand(len(ids_BT), -1)
    ids_BT, config = torch.cat([head, ids_BT], 1), receiver.model.config
    cache, own = DynamicCache(config=config), config._attn_implementation
    assert own.startswith(NAME)
    config._attn_implementation = "sdpa"
    try:
        receiver.decoder(input_ids=ids_BT, past_key_values=cache, use_cache=True)
    finally:
        config._attn_implementation = own
    place_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
    kv: Any = [(layer.keys, layer.values) for layer in cache.layers]
    mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    return Prefix(kv, mask_BT, mask_BT.sum(-1), positions_BM=place_BT)


def encode(wire: Wire, ids_BT: np.ndarray, ratio: int) -> Latents:
    """Latents of texts given as the encoder's tokens, window by window."""
    tokenizer: Any = wire.encoder.tokenizer
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    rows = ids_BT.tolist()
    cuts, owner_P = cut(rows, wire.encoder.config.window)
    pieces = [rows[text][a:b] for text, a, b in cuts]
    count = fill([[len(piece)] for piece in pieces], 1)[:, 0]
    arrays = {"ids": fill([begin + piece for piece in pieces], None), "count": count}
    # encoders that read another tokenizer's tokens as well get as many of these, each in its own place
    for number in range(len(getattr(wire.encoder, "lexicons", ()))):
        arrays[f"lexicon{number}"] = fill(pieces, None)
        arrays[f"lexicon{number}_at"] = fill([list(range(len(piece))) for piece in pieces], None, NOWHERE)
    with autocast(wire.device):
        return wire.encoder.encode(Source(arrays, owner_P, len(rows)), ratio, PIECES)


class Point:
    """One receiver, length and number of contexts. Times are the least of ``rounds`` behind one that does not count, in
    which passes are recorded if they are to be (``graphs``)."""

    def __init__(
        self, wire: Wire, name: str, length: int, batch: int, rounds: int, tokens: int, graphs: bool = False
    ) -> None:
        self.wire, self.name, self.rounds, self.tokens, self.graphs = wire, name, rounds, tokens, graphs
        self.receiver = wire.get_receiver(name)
        rng = np.random.default_rng(0)
        self.source = rng.integers(3, 1000, (batch, length), dtype=np.int32)
        self.ids_BT = torch.from_numpy(self.source).long().to(self.receiver.device)
        self.tails = rng.integers(3, 1000, (batch, QUESTION)).tolist()

    def said(self, prefix: Prefix, begun: float) -> tuple[float, float]:
        """Seconds since ``begun`` to the first token and to the last."""
        wanted, first = self.tokens, 0.0

        def choose(step: int, rows: list[int], logits_BV: Tensor) -> Tensor:
            logits_BV[:, self.receiver.prompt.eos_id] = float("-inf")  # every row says all of them
            return logits_BV.argmax(-1)

        for number, _ in enumerate(steps(self.receiver, prefix, self.tails, wanted, choose, set())):
            first = first or time.perf_counter() - begun
            if number + 1 == wanted:
                break
        return first, time.perf_counter() - begun

    def from_text(self) -> dict[str, float]:
        """Seconds of one question behind each context as text."""
        sync()
        begun = time.perf_counter()
        first, last = self.said(read_text(self.receiver, self.ids_BT), begun)
        return {"first": first, "last": last}

    def from_latents(self, ratio: int) -> dict[str, float]:
        """The same from latents; ``encode`` is what making them took, in none of the other two."""
        sync()
        begun = time.perf_counter()
        latents = encode(self.wire, self.source, ratio)
        sync()
        made = time.perf_counter()
        with autocast(self.wire.device):
            prefix = self.wire.prefix(self.name, latents)
        first, last = self.said(prefix, made)
        return {"encode": made - begun, "first": first, "last": last}

    def row(self, given: str, ratio: int | None = None) -> dict[str, Any]:
        """A row of the file."""

        def least() -> dict[str, float]:
            found = [self.from_text() if ratio is None else self.from_latents(ratio) for _ in range(self.rounds + 1)]
            return {key: round(min(one[key] for one in found[1:]), 5) for key in found[0]}

        self.receiver.record(self.graphs)  # anew for each row: its memory is the row's own
        fresh_peak()
        batch, length = self.source.shape
        told = {"receiver": self.name, "context": length, "batch": batch, "given": given, "ratio": ratio}
        if length + RESERVE > self.receiver.geometry.window:
            return {**told, "fits": False, "why": f"window of {self.receiver.geometry.window}"}
        seconds = attempt(least)
        if seconds is None:
            return {**told, "fits": False, "why": "memory"}
        # not what was asked for: a batch that was too large, or could not be recorded, went the ordinary way
        recorded = self.receiver.recorded is not None and self.receiver.recorded.begun == self.rounds + 1
        return {**told, "fits": True, "recorded": recorded, "seconds": seconds, "peak_gib": peak_gib()}


def table(found: dict[str, Any]) -> str:
    """Milliseconds to the first token / to the last; behind a plus what encoding takes."""
    ratios = sorted({row["ratio"] for row in found["rows"] if row["ratio"]})
    lines = ["| receiver | contexts | tokens | text | " + " | ".join(f"latents {r}×" for r in ratios) + " |"]
    lines.append("| --- | ---: | ---: | ---: | " + " | ".join(["---:"] * len(ratios)) + " |")
    cells: dict[tuple, dict[Any, str]] = {}
    for row in found["rows"]:
        told = row.get("why", "")
        if row["fits"]:
            ms = {key: f"{1000 * value:,.0f}" for key, value in row["seconds"].items()}
            told = f"{ms['first']} / {ms['last']}" + (f" + {ms['encode']}" if "encode" in ms else "")
        cells.setdefault((row["receiver"], row["batch"], row["context"]), {})[row["ratio"]] = told
    for place, row in cells.items():
        lines.append("| " + " | ".join([*map(str, place), *(row.get(ratio, "") for ratio in (None, *ratios))]) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--shape", choices=("large", "sandbox", "tiny"), default="large")
    parser.add_argument("--receivers", nargs="*", help=f"of the large ones (default: {', '.join(LARGE)})")
    parser.add_argument("--contexts", type=int, nargs="*", default=LENGTHS, help="tokens of a context")
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES, help="contexts side by side")
    parser.add_argument("--ratios", type=int, nargs="*", default=RATIOS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument(
        "--graphs", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available(),
        help="decode by recorded CUDA graphs, on both sides (default: where there is a GPU)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="file for the figures (JSON); written again behind every point")
    parser.add_argument("--table", type=Path, help="only print the table of such a file")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(given.table.read_text())))
        return
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    names = given.receivers or (LARGE if given.shape == "large" else ("tiny-llama", "tiny-qwen"))
    found: dict[str, Any] = {**facts(device), "shape": given.shape, "question": QUESTION, "said": given.tokens}
    found |= {"rounds": given.rounds, "graphs": given.graphs, "random_weights": given.shape != "sandbox", "rows": []}
    # one receiver after the other: two of them and their keys would not be on one device in use either
    for group in [None] if given.shape == "sandbox" else [[name] for name in names]:
        if group is None:
            wire = Wire.from_pretrained("sandbox", device=device)
        else:
            encoder = "llama1b" if given.shape == "large" else "tiny-llama"
            wire = wire_of(dict.fromkeys(group, device), encoder, device, tuple(given.ratios))
        wire.eval()
        with torch.no_grad():
            for name in wire.receivers:
                for batch in given.batches:
                    for length in given.contexts:
                        point = Point(wire, name, length, batch, given.rounds, given.tokens, given.graphs)
                        sides = [("text", None), *(("latents", ratio) for ratio in given.ratios)]
                        rows = [point.row(*side) for side in sides]
                        found["rows"] += rows
                        print(json.dumps(rows), flush=True)
                        if given.out:
                            given.out.write_text(json.dumps(found, indent=1) + "\n")
        del wire, point
        fresh_peak()
    print(table(found))


if __name__ == "__main__":
    main()
