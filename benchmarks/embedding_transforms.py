"""What frozen receivers answer from their own embeddings, changed: ``python benchmarks/embedding_transforms.py``.

The context's tokens are given as vectors, laid out as soft tokens are (``replay-anchor``): first their own embeddings,
then embeddings that were changed in one of the ways of ``embedding_transforms_kinds.py``. Unchanged ones hold all that
the text holds, so what is lost is lost by the change alone: it says how exactly soft tokens have to hit. For each
change: F1 beside full text and no context, and how far the vectors were moved. ``--table`` alone fills
docs/experiments.md from the file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from embedding_transforms_kinds import Change, families
from embedding_transforms_table import PAGE, RESULTS, fill
from torch import Tensor
from torch.nn import functional as F

from latentwire import Wire
from latentwire.codecs import by_bits
from latentwire.conditions import Condition, VectorCondition
from latentwire.conditions.vectors import Maker, Reader
from latentwire.data.progress import progress
from latentwire.data.rows import draw, read_examples
from latentwire.data.squad import shipped_valid
from latentwire.evaluation.bench import Bench, suits
from latentwire.evaluation.items import Items
from latentwire.evaluation.measure import measure
from latentwire.evaluation.plan import Job
from latentwire.evaluation.results import head, row_of, with_retention
from latentwire.evaluation.setting import Setting
from latentwire.readback.vocabulary import vocabulary
from latentwire.types import Example

BESIDE = ("text", "none", "replay-anchor")
"""What a receiver is given besides: everything, nothing, its own embeddings as they are."""


@dataclass
class Changed(VectorCondition):
    """The context as embeddings that were changed. moved: sums over all tokens of squared distance, squared length and
    cosine with the token's own embedding, and how many tokens there were."""

    change: Change = lambda ids_BT, mask_BT: ids_BT
    moved: list[float] = field(default_factory=lambda: [0.0] * 4)

    def maker(self, reader: Reader) -> Maker:
        return ChangedMaker(reader, self)


class ChangedMaker(Maker):
    """Tokens [B, T] → changed embeddings [B, T, E]."""

    def __init__(self, reader: Reader, condition: Changed) -> None:
        super().__init__(reader)
        self.condition = condition

    def embeds(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        changed_BTE = self.condition.change(ids_BT, mask_BT)
        own_NE, changed_NE = super().embeds(ids_BT, mask_BT)[mask_BT].float(), changed_BTE[mask_BT]
        cosine_N = F.cosine_similarity(own_NE, changed_NE, dim=-1)
        sums = ((own_NE - changed_NE).square().sum(), own_NE.square().sum(), cosine_N.sum(), len(own_NE))
        self.condition.moved = [a + float(b) for a, b in zip(self.condition.moved, sums, strict=True)]
        return changed_BTE


def planned(wire: Wire, name: str, smoke: bool) -> list[tuple[str, str, Callable[[], Condition]]]:
    """For one receiver the family and the name of each row, and what makes its condition."""
    known = Condition.known()
    found: list[tuple[str, str, Callable[[], Condition]]] = [("", word, known[word]) for word in BESIDE]
    for family, changes in families(vocabulary(wire.get_receiver(name))).items():
        for word, make in list(changes.items())[: 1 if smoke else None]:
            found.append((family, word, lambda make=make: Changed(make())))
    return found


@torch.no_grad()
def sweep(wire: Wire, examples: list[Example], seed: int, out: Path | None, smoke: bool = False) -> dict[str, Any]:
    """All rows, written to ``out`` as they come; rows that lie there already are kept if all else is the same."""
    setting = Setting(seed=seed)
    told = head(wire, examples, setting)
    found: dict[str, Any] = {"receivers": told["wire"]["receivers"], "data": told["data"], "seed": seed}
    before = json.loads(out.read_text(encoding="utf-8")) if out and out.is_file() else {}
    kept = before.get("rows", []) if all(before.get(key) == value for key, value in found.items()) else []
    found |= {"versions": told["versions"], "device": told["device"], "rows": kept}
    items = Items.of(wire, examples, "context")
    bench = Bench(wire, items, setting, suits(wire))
    plan = [(name, *each) for name in wire.receivers for each in planned(wire, name, smoke)]
    there = {(row["receiver"], row["family"], row["change"]) for row in kept}
    with progress("answering from changed embeddings", total=len(plan)) as show:
        for done, (name, family, word, make) in enumerate(plan):
            show(done, f"{name}, {family} {word}")
            if (name, family, word) in there:
                continue
            job = Job((name, f"{family} {word}".strip(), None, None), make(), by_bits(16))
            terms, why = bench.terms(job)
            assert why is None, why
            got = measure(wire, wire.get_receiver(name), job.condition, terms, lambda _: None)
            row = row_of(got, items, job.key, seed)
            row |= {"family": family, "change": word, "error": None, "cosine": None}
            if isinstance(job.condition, Changed):
                off, whole, cosine, count = job.condition.moved
                row |= {"error": round((off / whole) ** 0.5, 4), "cosine": round(cosine / count, 4)}
            kept.append(row)
            found["rows"] = with_retention(kept)
            if out:
                out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(f"{name:8} {job.key[1]:40} F1 {row['f1']:.3f}", flush=True)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wire", default="sandbox", help="whose receivers answer; its encoder and links play no part")
    parser.add_argument("--receivers", help="with commas between; all if left out")
    parser.add_argument("--n", type=int, default=200, help="questions of those that come along, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--smoke", action="store_true", help="four questions, one change of each kind, nothing written")
    parser.add_argument("--table", action="store_true", help="only fill the page from the file")
    given = parser.parse_args()
    if not given.table:
        wire = Wire.from_pretrained(given.wire, receivers=given.receivers.split(",") if given.receivers else None)
        examples = draw(read_examples(shipped_valid()), 4 if given.smoke else given.n, given.seed)
        sweep(wire, examples, given.seed, None if given.smoke else given.out, given.smoke)
    if not given.smoke and given.out == RESULTS:
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()
