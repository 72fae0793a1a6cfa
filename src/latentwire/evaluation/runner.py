"""``evaluate``: receivers × conditions × ratios × bits, every row kept as soon as it is measured."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentwire.evaluation.bench import Bench, suits
from latentwire.evaluation.decoding import Decoding
from latentwire.evaluation.items import Items
from latentwire.evaluation.joint import joint_lines, joint_row, weigh
from latentwire.evaluation.kinds import by_kind
from latentwire.evaluation.measure import Measured, measure
from latentwire.evaluation.plan import ORDER, Job, conditions_of, jobs_of, joint_jobs
from latentwire.evaluation.results import PREDICTIONS, RESULTS, Kept, Key, head, row_not_applicable, row_of
from latentwire.evaluation.setting import Setting, check_examples
from latentwire.types import Example
from latentwire.wire import Wire

__all__ = ["ORDER", "PREDICTIONS", "RESULTS", "evaluate"]


def evaluate(
    wire: Wire,
    examples: Sequence[Example],
    ratios: Sequence[int] = (4,),
    bits: Sequence[float] = (16,),
    conditions: Sequence[str] | None = None,
    receivers: Sequence[str] | None = None,
    mode: str = "context",
    slots: int | str | None = None,
    gain: float = 1.0,
    decoding: Decoding | None = None,
    joint: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 0,
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a wire; returns what ``results.json`` holds: ``wire``, ``data``, ``mode``, ``slots``, ``gain``,
    ``seed``, ``decoding``, ``versions``, ``device``, ``rows`` (see :mod:`latentwire.evaluation.results`) and ``kinds``.

    Controls and budgets are measured at the first of ``bits``. mode: ``context`` or ``prompt``. slots: K/V positions
    for each latent, ``"half"`` for half as many as the latent stands for tokens, by default what each link gives first.
    gain: what is injected is multiplied by it (see :mod:`latentwire.injections.base`). decoding: how answers are
    written, by default greedily and to 32 tokens at most. joint: conditions under which
    all receivers' answers are weighed by all of them as well (:mod:`latentwire.evaluation.joint`). batch_size:
    questions read at a time, by default what suits the device; no score depends on it. out: rows and answers are
    written there as they come, and a run that was stopped goes on where it ended. UserError: an unknown condition,
    receiver, ratio or number of bits, or an empty context.
    """
    names = list(dict.fromkeys(receivers or wire.receivers))
    setting = Setting(mode, slots, gain, seed, decoding or Decoding())
    check_examples(examples)
    setting.check(wire, ratios, names)
    for ratio in ratios if any(bit < 1 for bit in bits) else ():
        wire.books.at(ratio)
    asked = conditions_of(conditions)
    plan = jobs_of(names, asked, ratios, bits, wire.codec)
    together = joint_jobs(plan, [name for name in wire.receivers if name in names], joint, asked)
    order = [*(job.key for job in plan), *together]
    items = Items.of(wire, list(examples), mode)
    bench = Bench(wire, items, setting, batch_size or suits(wire))
    kept = Kept(out, head(wire, examples, setting))
    todo = [job for job in plan if job.key not in kept.rows]
    weighed = {key: jobs for key, jobs in together.items() if key not in kept.rows}
    with _bar((len(todo) + len(names) * len(weighed)) * len(examples), progress) as tick:
        for job in todo:
            terms, why = bench.terms(job)
            if why:
                kept.add(row_not_applicable(items, job.key, why), items, order, None)
                tick(len(examples))
                continue
            got = measure(wire, wire.get_receiver(job.key[0]), job.condition, terms, tick)
            kept.add(row_of(got, items, job.key, seed), items, order, got.predictions, _whole(got, setting))
        for key, jobs in weighed.items():
            _weigh(bench, kept, key, jobs, order, tick)
    kept.results["kinds"] = by_kind(wire, [e.gold for e in items.examples], kept.said)
    kept.write(order, [])
    return kept.results


def _whole(got: Measured, setting: Setting) -> list[dict[str, Any]] | None:
    # an answer that was taken out of a text is never seen without it
    return None if setting.decoding.extract == "none" else [{"said": text} for text in got.said]


def _weigh(bench: Bench, kept: Kept, key: Key, jobs: list[Job], order: list[Key], tick: Callable[[int], None]) -> None:
    if missing := [job.key for job in jobs if job.key not in kept.said]:
        why = f"{missing[0][0]} has no answers to weigh ({kept.rows[missing[0]]['na']})"
        kept.add(row_not_applicable(bench.items, key, why), bench.items, order, None)
        return
    answers = {job.key[0]: [line["prediction"] for line in kept.said[job.key]] for job in jobs}
    got = weigh(bench, jobs, answers, tick)
    row = joint_row(got, bench.items, key, [kept.rows[job.key] for job in jobs], bench.setting.seed)
    kept.add(row, bench.items, order, got.predictions(), joint_lines(got))


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
