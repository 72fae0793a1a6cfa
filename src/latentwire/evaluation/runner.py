"""``evaluate``: receivers × conditions × ratios × bits, every row kept as soon as it is measured."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentwire.codecs import Codec, by_bits
from latentwire.conditions import Condition, Data, VectorCondition
from latentwire.conditions.vectors import Reader
from latentwire.errors import UserError
from latentwire.evaluation.given import Tokens, asked_as_vectors
from latentwire.evaluation.giving import Terms
from latentwire.evaluation.items import Encoded, Items, encode_all
from latentwire.evaluation.kinds import by_kind
from latentwire.evaluation.measure import measure
from latentwire.evaluation.results import PREDICTIONS, RESULTS, Kept, Key, head, row_not_applicable, row_of
from latentwire.types import MODES, Example
from latentwire.wire import Wire

__all__ = ["ORDER", "PREDICTIONS", "RESULTS", "evaluate"]

ORDER = (
    *("text", "none", "latents", "budget-question", "budget", "same-bytes", "mean-pooled", "pca"),
    *("zero", "shuffled", "wrong", "replay-raw", "replay-anchor", "replay-adapter"),
)
"""All conditions in the order in which they are measured; replays only if they are asked for."""
MOST_GAIN = 100.0
ALL = "all"
"""Asks for every condition."""

ENCODED = 512
"""Texts encoded at a time, at most: encoding is real work already at that number, and holds much more for each text."""


@dataclass(frozen=True)
class Job:
    """One row that is to be measured. bits: those of the packet, also where the row itself has none."""

    key: Key
    condition: Condition
    codec: Codec


def evaluate(
    wire: Wire,
    examples: Sequence[Example],
    ratios: Sequence[int] = (4,),
    bits: Sequence[int] = (16,),
    conditions: Sequence[str] | None = None,
    receivers: Sequence[str] | None = None,
    mode: str = "context",
    slots: int | str | None = None,
    gain: float = 1.0,
    seed: int = 0,
    batch_size: int = 0,
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a wire; returns what ``results.json`` holds: ``wire``, ``data``, ``mode``, ``slots``, ``gain``,
    ``seed``, ``versions``, ``device``, ``rows`` (see :mod:`latentwire.evaluation.results`) and ``kinds``.

    Controls and budgets are measured at the first of ``bits``. mode: ``context`` or ``prompt``. slots: K/V positions
    for each latent, ``"half"`` for half as many as the latent stands for tokens, by default what each link gives first.
    gain: what is injected is multiplied by it (see :mod:`latentwire.injections.base`). batch_size: questions read
    at a time, by default what suits the device; no score depends on it. out: rows and answers are written there as they
    come, and a run that was stopped goes on where it ended. UserError: an unknown condition, receiver, ratio or number
    of bits, or an empty context.
    """
    names = list(dict.fromkeys(receivers or wire.receivers))
    _check(wire, examples, ratios, names, mode, slots, gain)
    plan = _plan(names, _conditions(conditions), list(dict.fromkeys(ratios)), list(dict.fromkeys(bits)))
    order = [job.key for job in plan]
    items = Items.of(wire, list(examples), mode)
    # a GPU decodes a small reader's step as fast for two thousand rows as for a few: starting its kernels takes longest
    batch_size = batch_size or (2048 if wire.device.type == "cuda" else 64)
    kept = Kept(out, head(wire, examples, mode, slots, gain, seed))
    todo = [job for job in plan if job.key not in kept.rows]
    encoded: dict[int | None, Encoded] = {}
    tokens: dict[str, Tokens] = {}
    with _bar(len(todo) * len(examples), progress) as tick:
        for job in todo:
            receiver, _, ratio, _ = job.key
            if ratio is not None and ratio not in encoded:
                encoded[ratio] = encode_all(wire, items, ratio, min(batch_size, ENCODED))
            model = wire.get_receiver(receiver)
            if receiver not in tokens:
                tokens[receiver] = Tokens(model, items)
            data = _data(wire, job, items, tokens[receiver], encoded.get(ratio), gain)
            if why := job.condition.not_applicable(data):
                kept.add(row_not_applicable(items, job.key, why), None, items, order)
                tick(len(examples))
                continue
            per_latent = slots_of(wire, receiver, ratio, slots)
            terms = Terms(
                items, tokens[receiver], encoded.get(ratio), per_latent, job.codec, batch_size, seed, data.reader, gain
            )
            got = measure(wire, model, job.condition, terms, tick)
            kept.add(row_of(got, items, job.key, seed), got, items, order)
    kept.results["kinds"] = by_kind(wire, [e.gold for e in items.examples], kept.said)
    kept.write(order, [])
    return kept.results


def slots_of(wire: Wire, receiver: str, ratio: int | None, asked: int | str | None) -> int:
    """K/V positions for each latent of a row. UserError: more or fewer than the link was made for."""
    link: Any = wire.links[receiver]
    if ratio is None or asked is None:
        return link.slots()
    return link.slots(ratio // 2 if asked == "half" else int(asked))


def _conditions(asked: Sequence[str] | None) -> list[str]:
    known = Condition.known()
    if asked is None:
        return [name for name in ORDER if known[name].by_default]
    if unknown := [name for name in asked if name not in known and name != ALL]:
        raise UserError(f"there is no condition {unknown[0]!r}; there are: {', '.join(sorted(known))} (or {ALL})")
    return list(dict.fromkeys(name for word in asked for name in (ORDER if word == ALL else (word,))))


def _plan(names: list[str], conditions: list[str], ratios: list[int], bits: list[int]) -> list[Job]:
    known = Condition.known()
    codecs = {bit: by_bits(bit) for bit in bits}
    plan = []
    for receiver in names:
        for name in conditions:
            condition = known[name]()
            for ratio in ratios if condition.by_ratio else (None,):
                for bit in bits if condition.by_bits else bits[:1]:
                    key = (receiver, name, ratio, bit if condition.by_ratio else None)
                    plan.append(Job(key, condition, codecs[bit]))
    return plan


def _check(wire: Wire, examples: Sequence[Example], ratios: Sequence[int], names: list[str], mode: str,
           slots: int | str | None, gain: float) -> None:  # fmt: skip
    if not examples:
        raise UserError("there are no examples to evaluate on")
    for example in examples:
        if not example.context.strip():
            raise UserError(f"example {example.id!r} has an empty context; there is nothing to encode, leave it out")
    if mode not in MODES:
        raise UserError(f"mode is {' or '.join(MODES)}, not {mode!r}")
    for ratio in ratios:
        wire.encoder.check_ratio(ratio)
    if isinstance(slots, str) and slots != "half":
        raise UserError(f"slots is a number or 'half', not {slots!r}")
    if not 0 < gain <= MOST_GAIN:
        raise UserError(f"gain is a number above 0 and at most {MOST_GAIN:g}, 1 as trained, not {gain:g}")
    for name in names:
        wire.get_receiver(name)
        try:
            for ratio in ratios:
                slots_of(wire, name, ratio, slots)
        except UserError as error:
            raise UserError(f"{name} cannot read that many slots ({error}); --receivers leaves it out") from None


def _data(wire: Wire, job: Job, items: Items, tokens: Tokens, encoded: Encoded | None, gain: float) -> Data:
    packets = [] if encoded is None else [encoded.packet_bytes(place, job.codec) for place in items.owner]
    reader = None
    if isinstance(job.condition, VectorCondition):
        name, _, ratio, _ = job.key
        asked = [asked_as_vectors(job.condition, items.mode, tail, tokens.anchor) for tail in tokens.question]
        counts = [len(tokens.context[place]) + more for place, more in zip(items.owner, asked, strict=True)]
        link: Any = wire.links[name]
        width = wire.settings.encoder.d_z
        reader = Reader(
            tokens.receiver, link, width, items.mode, lambda: tokens.words, job.codec, counts, packets, ratio, gain
        )
    return Data(items.articles, packets, [items.sizes[place] for place in items.owner], reader)


@contextmanager
def _bar(total: int, progress: bool) -> Generator[Callable[[int], None], None, None]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (progress and console.is_terminal):
        yield lambda _: None
        return
    columns = (
        TextColumn("evaluating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("answers"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("evaluating", total=total)
        yield lambda n: bar.advance(task, n)
