"""Wires that ``benchmarks/on_gpus.py`` trains, and what is measured of each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from on_gpus_job import ROOT, Job, script

ASKERS = tuple(f"asking-{number}" for number in range(6))
"""Processes that write questions side by side, as many as two GPUs bear beside other runs."""


def trained(given: argparse.Namespace) -> Iterator[Job]:
    """The recipes of the first implementation, side by side; then the shipped wire trained on with learned codes."""
    history = ("--data-dir", given.data_dir, "--out", given.out / "history", "--parallel", 3, "--minutes", 6.5)
    yield Job(
        "history", [script("history", *history, "--results", given.out / "results" / "history.json")], 520, share=0.75
    )
    yield from coded(given)


def coded(given: argparse.Namespace) -> Iterator[Job]:
    """The shipped wire trained on with learned codes, beside its other draws and with codes alone; the late joiner for
    the first of these, and all rows of it."""
    written = sorted((Path(given.data_dir) / "written").glob("*.jsonl*"))
    corpus = [f"corpus.written={80_000 if written else 0}", "eval_every=0"]
    alone = ["draws=[{ratio: 8, slots: 4, codes: 14, share: 3}, {ratio: 8, slots: 4, codes: 10}]", "minutes=19"]
    for name, more, seconds in (("codes", [], 820), ("codes-alone", alone, 1270)):
        out = given.out / name
        yield Job(name, [train(given, "wire-codes", out, "start=sandbox", *corpus, *more), *shipped(out)], seconds)
    yield from with_states(given, corpus)
    yield from with_other_questions(given)
    yield from on_a_grid(given, corpus)
    yield from of_parts(given, corpus)
    yield from asked_for_tokens(given, corpus)
    join = ["wire.links.gpt2.start=sandbox", "corpus.made=30000", *corpus]
    yield Job("codes-join-data", [train(given, "join", given.out / "join-data", *join, "--prepare")], 200, share=0.0)
    out, rounded = given.out / "codes-join", given.out / "codes-rounded"
    told = train(given, "join", out, f"start={rounded}", "minutes=7.5", *join)
    yield Job("codes-join", [told, *shipped(out)], 520, after=("codes", "codes-join-data"))
    yield measured_rows(given, "codes", "4", ["4,8"])
    for name in ("codes", "codes-alone"):
        yield measured_rows(given, name, "8-half", ["8", "--slots", "half", "--codes", "16,14,12,10,8"])
    yield from all_rows(given, "codes", rounded, ("codes",))


def all_rows(given: argparse.Namespace, name: str, wire: Path, after: tuple[str, ...]) -> Iterator[Job]:
    """All rows of both sets for a wire, in the files that the shipped wire's have."""
    nq = [word for path in sorted((Path(given.data_dir) / "nq").glob("valid.jsonl*")) for word in ("--nq", str(path))]
    for part, sheets in (("1", ["sandbox-full"]), ("2", ["sandbox-full-half", "sandbox-full-prompt", "nq-valid"])):
        where, into = given.out / f"{name}-all-{part}", given.out / "results" / f"{name}-all"
        words = [str(wire), "--out", where, "--into", into, "--parallel", 3, "--n", given.n, "--receivers", "llama"]
        words += ["qwen2", *nq, "--only", *(f"{sheet}.json" for sheet in sheets)]
        measured = [script("evaluate_all", *words)]
        if part == "1":
            measured.append(script("fidelity", where / "sandbox-full", "--out", into / "fidelity.json"))
        yield Job(where.name, measured, 200 if part == "1" else 360, share=0.5, after=after)


def asked_for_tokens(given: argparse.Namespace, corpus: list[str]) -> Iterator[Job]:
    """Codes alone whose latents are asked for their tokens as well: at 4x, there also with a stronger pull towards the
    books, and at 8x like codes-alone."""
    eight = "draws=[{ratio: 8, slots: 4, codes: 14, share: 3}, {ratio: 8, slots: 4, codes: 12}]"
    pull = 'grow=["codes={stages: 16, width: 64, commit: 3.0}"]'
    for name, more, asked in (
        ("spans-4x", [], ["4", "7,6"]), ("spans-8x", [eight], ["8", "14,12"]), ("spans-4x-pull", [pull], ["4", "7,6"])
    ):  # fmt: skip
        out, (ratio, codes) = given.out / name, asked
        told = train(given, "wire-codes-spans", out, "start=sandbox", *corpus, *more, "minutes=17")
        yield Job(name, [told, *shipped(out)], 1250)
        yield measured_rows(given, name, f"{ratio}-half", [ratio, "--slots", "half", "--codes", codes])


def with_states(given: argparse.Namespace, corpus: list[str]) -> Iterator[Job]:
    """The shipped wire trained on with states inside the receivers held to the text's: two seeds, and their mean."""
    seeds = [given.out / f"states-{seed}" for seed in (0, 1)]
    for seed, out in enumerate(seeds):
        told = train(given, "wire-states", out, "start=sandbox", f"seed={seed}", "corpus.seed=0", *corpus)
        yield Job(out.name, [told], 1350)
    mean = given.out / "states-mean"
    yield Job(mean.name, [averaged(mean, seeds), *shipped(mean)], 40, share=0.25, after=tuple(o.name for o in seeds))
    yield measured_rows(given, mean.name, "4-8-16", ["4,8,16"])
    yield measured_rows(given, mean.name, "half", ["4,8", "--slots", "half"])


def with_other_questions(given: argparse.Namespace) -> Iterator[Job]:
    """The shipped wire trained on with questions that an asker writes first, about passages that nobody was asked about
    (those of DATA/text, so give text that the wire has not seen): with states held and without, and their mean."""
    asker, data = given.out / "askers" / "asker", Path(given.data_dir)
    words = [
        str(ROOT / "configs" / "sandbox" / "askers" / "asker.yaml"),
        f"out={asker.parent}",
        "--data-dir",
        str(data),
    ]
    yield Job("asker", [[sys.executable, "-m", "latentwire.sandbox.asker", *words]], 100, share=0.5)
    for number, name in enumerate(ASKERS):
        words = [asker / "checkpoint", "--data-dir", data, "--part", f"{number}/{len(ASKERS)}", "--skip", 16_600]
        words += ["--passages", 120_000, "--minutes", 3, "--out", data / "written" / f"other-{number}.jsonl"]
        told = [sys.executable, "-m", "latentwire.sandbox.asking", *map(str, words)]
        yield Job(name, [told], 260, share=0.125, after=("asker",))
    many = ["corpus.written=210000", "eval_every=0", "corpus.seed=0", f"corpus.cache={given.out / 'cache-other'}"]
    made = given.out / "other-data"
    yield Job(
        made.name, [train(given, "wire-states", made, "start=sandbox", *many, "--prepare")], 150, share=0.0,
        after=ASKERS,
    )  # fmt: skip
    runs = [given.out / "other-states", given.out / "other-plain"]
    for seed, (config, out) in enumerate(zip(("wire-states", "wire-leaning"), runs, strict=True)):
        told = train(given, config, out, "start=sandbox", f"seed={seed}", *many, "minutes=14")
        yield Job(out.name, [told], 1000, after=(made.name,))
    mean = given.out / "other-mean"
    yield Job(mean.name, [averaged(mean, runs), *shipped(mean)], 40, share=0.25, after=tuple(o.name for o in runs))
    yield measured_rows(given, mean.name, "4-8-16", ["4,8,16"])
    yield from all_rows(given, "other", given.out / f"{mean.name}-rounded", (mean.name,))


def on_a_grid(given: argparse.Namespace, corpus: list[str]) -> Iterator[Job]:
    """Codes on a grid, from many to few, with states held as well; nothing else is sent."""
    out = given.out / "codes-grid"
    told = train(given, "wire-codes-grid", out, "start=sandbox", *corpus)
    yield Job(out.name, [told, *shipped(out)], 1350)
    yield measured_rows(given, out.name, "8-half", ["8", "--slots", "half", "--codes", "28,22,18,14"])


def of_parts(given: argparse.Namespace, corpus: list[str]) -> Iterator[Job]:
    """Codes of parts, which begin where tokens are told apart: their way back held to the latents alone, so that the
    wire stays what it is without codes; then with links, judged by the receivers, from two seeds, and their mean."""
    data, back, mean = given.out / "codes-data", given.out / "codes-back", given.out / "codes-product"
    cache = f"corpus.cache={given.out / 'cache-other'}"
    corpus = [*corpus, "corpus.written=210000", "corpus.seed=0", cache]
    told = train(given, "wire-codes-product", data, "start=sandbox", *corpus, "--prepare")
    yield Job(data.name, [told], 200, share=0.0, after=ASKERS)
    told = train(given, "wire-codes-back", back, "start=sandbox", "eval_every=0", cache)
    yield Job(back.name, [told], 400, share=0.5)
    seeds = [given.out / f"codes-seed-{seed}" for seed in (0, 1)]
    for seed, out in enumerate(seeds):
        told = train(given, "wire-codes-product", out, f"start={back}/wire", f"seed={seed}", *corpus)
        yield Job(out.name, [told], 960, after=(back.name, data.name))
    yield Job(mean.name, [averaged(mean, seeds), *shipped(mean)], 40, share=0.25, after=tuple(o.name for o in seeds))
    for rows, slots in (("4-half", "half"), ("4-whole", "4"), ("4", "1")):
        yield measured_rows(given, mean.name, rows, ["4", "--slots", slots, "--codes", "7"])


def sharded(given: argparse.Namespace) -> Iterator[Job]:
    """A few steps on two GPUs with the encoder whole on each, and split over both."""
    few = ["corpus.windows=4000", "corpus.contexts=2000", "corpus.made=0", "corpus.prompts=0", "corpus.crops=0"]
    few += [
        "steps=60",
        "minutes=0",
        "log_every=1",
        "eval_every=0",
        "save_every=0",
        "graphs=false",
        "compile=never",
        "draws=[{ratio: 4}]",
    ]
    for name, more in (("whole", []), ("split", ["shard=true"])):
        out = given.out / f"shard-{name}"
        told = train(given, "wire", out, *few, *more)
        both = [told[0], "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *told[1:]]
        kept = ["cp", str(out / "metrics.jsonl"), str(given.out / "results" / f"shard-{name}.jsonl")]
        yield Job(f"shard-{name}", [both, kept], 80, gpus=2, share=0.25, after=("states-0", "states-1"))


def train(given: argparse.Namespace, config: str, out: Path, *words: str) -> list[str]:
    """A training run of a sandbox config; runs of one config share what is tokenised."""
    path, cache = ROOT / "configs" / "sandbox" / f"{config}.yaml", given.out / f"cache-{config}"
    told = ["--data-dir", str(given.data_dir), "--out", str(out), f"corpus.cache={cache}", *words]
    return [sys.executable, "-m", "latentwire", "train", str(path), *told]


def averaged(mean: Path, runs: list[Path]) -> list[str]:
    """The mean of the wires of several runs."""
    words = ["-m", "latentwire.training.average", mean / "wire", *(out / "wire" for out in runs)]
    return [sys.executable, *map(str, words)]


def shipped(out: Path) -> Iterator[list[str]]:
    """The wire of a run in its shipped form, and the same values as an ordinary directory."""
    ship = [sys.executable, "-m", "latentwire.sandbox.ship", str(out / "wire")]
    yield [*ship, f"{out}-shipped"]
    yield [*ship, f"{out}-rounded", "--rounded"]


def measured_rows(given: argparse.Namespace, name: str, rows: str, asked: list[str]) -> Job:
    """1,000 questions for the wire of a job."""
    out = given.out / f"{name}-eval-{rows}"
    words = ["--receivers", "llama,qwen2", "--conditions", "text,none,latents,wrong", "--n", "1000", "--ratio", *asked]
    told = [sys.executable, "-m", "latentwire", "eval", str(given.out / f"{name}-rounded"), *words, "--out", str(out)]
    kept = ["cp", str(out / "results.json"), str(given.out / "results" / f"{name}-{rows}.json")]
    return Job(out.name, [told, kept], 120, share=0.5, after=(name,))
