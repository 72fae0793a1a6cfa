"""What ``benchmarks/on_gpus.py`` does, the most wanted first: commands that docs name, and how long they took."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARE = 0.25
"""Part of a GPU that a short run of sandbox models has: one of them does not keep it busy."""


@dataclass(frozen=True)
class Job:
    """Commands, one behind the other. seconds: on an H100. gpus: alone on so many, if share is 1. after: names of jobs
    that must be finished."""

    name: str
    commands: list[list[str]]
    seconds: int
    gpus: int = 1
    share: float = 1.0
    after: tuple[str, ...] = ()


def script(name: str, *words: str | Path | float) -> list[str]:
    return [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *map(str, words)]


def jobs(given: argparse.Namespace) -> Iterator[Job]:
    """All jobs in their order."""
    yield from scale(given)
    yield from tokenised(given)
    yield from evaluated(given)
    yield from short_runs(given)
    yield from trained(given)
    yield from sharded(given)
    yield from measured(given)


def scale(given: argparse.Namespace) -> Iterator[Job]:
    """Large shapes with random weights (docs/scale.md). Two GPUs first, while nothing else runs."""
    results, work = given.out / "results", given.out / "scale"

    def step(name: str, *words: str) -> list[str]:
        return script("scale_step", *words, "--out", results / f"{name}.json")

    one = ("--receivers", "llama8b", "--devices", "1")
    again = ("--recompute", "encoder", "receivers", "--head-tokens", "1024", "--sides", "ours")
    yield Job("scale-two", [step("scale-step"), step("scale-step-recompute", *again)], 330, gpus=2)
    killed = ("--data-dir", given.data_dir, "--models", work / "random", "--run", work / "killed" / "run")
    yield Job("scale-killed", [script("kill_and_resume", *killed, "--out", results / "kill-and-resume.json")], 620)
    for shape in ("llama8b", "qwen7b"):
        for way, more in (("", ()), ("-ordinary", ("--no-graphs",))):
            words = ("--receivers", shape, *more, "--out", results / f"prefill-{shape}{way}.json")
            yield Job(f"scale-prefill-{shape}{way}", [script("prefill", *words)], 150)
    yield Job("scale-one", [step("scale-step-llama8b", *one)], 90)
    for optimizer in ("muon", "adamw"):
        for way, more in (("", ("--head-tokens", "512")), ("-encoder", ("--recompute", "encoder"))):
            name = f"scale-step-llama8b-{optimizer}{way}"
            words = (*one, "--sides", "ours", "--optimizer", optimizer, *more)
            if not way:
                words += ("--profile", str(results / "kernels-llama8b.txt"))
            if way or optimizer == "adamw":
                yield Job(name.replace("scale-step", "scale-one"), [step(name, *words)], 45)
    yield Job("scale-sandbox", [step("scale-step-sandbox", "--receivers", "sandbox")], 70)
    prefill = script("prefill", "--shape", "sandbox", "--out", results / "prefill-sandbox.json")
    yield Job("scale-prefill-sandbox", [prefill], 60)


def tokenised(given: argparse.Namespace) -> Iterator[Job]:
    """A sentence encoder for the methods that need one."""
    config = ROOT / "configs" / "sandbox" / "encoders" / "sentence.yaml"
    words = ["-m", "latentwire.sandbox.sentence", str(config), "--data-dir", given.data_dir]
    yield Job("sentence", [[sys.executable, *words, f"out={given.out / 'encoders'}"]], 180, share=0.25)


def evaluated(given: argparse.Namespace) -> Iterator[Job]:
    """All rows of the quoted evaluation. A file a job: what one needs from another is measured once all the same."""
    nq = next(iter(sorted((Path(given.data_dir) / "nq").glob("valid.jsonl*"))), "")
    words = (given.wire, "--out", given.out / "all", "--parallel", 3, "--n", given.n, "--into", given.out / "results")
    before: tuple[str, ...] = ()
    for name in ("sandbox-full", "sandbox-full-half", "sandbox-full-prompt", "sandbox-join", "nq-valid"):
        more = ("--nq", nq) if name == "nq-valid" and nq else ()
        yield Job(f"eval-{name}", [script("evaluate_all", *words, "--only", f"{name}.json", *more)], 150, after=before)
        before = (f"eval-{name}",)
    yield Job(
        "eval-warning",
        [script("warning", given.out / "all" / "sandbox-full", "--wire", given.wire, "--receivers", "llama", "qwen2",
                "--out", given.out / "results" / "warning.json")],
        120, share=0.5, after=("eval-sandbox-full",),
    )  # fmt: skip
    kept = script("fidelity", given.out / "all" / "sandbox-full", "--out", given.out / "results" / "fidelity.json")
    yield Job("eval-fidelity", [kept], 20, share=0.1, after=("eval-sandbox-full",))


def short_runs(given: argparse.Namespace) -> Iterator[Job]:
    """Each run of curves.py, methods.py and variants.py is a job of its own; each that ends gathers the figures."""
    import curves
    import methods
    import variants

    sizes = ("--windows", 120_000, "--made", 60_000, "--passages", 64, "--steps", given.steps, "--n", 1000)
    sentence = given.out / "encoders" / "sentence" / "checkpoint"
    told = [f"{key}={sentence}" for key in ("sentence.init", "sentence-tokens.init", "aligned.anchor")]
    given_words = {
        "curves": ("--data-dir", given.data_dir, "--out", given.out / "curves", *sizes),
        "methods": ("--data-dir", given.data_dir, "--out", given.out / "methods", *sizes, "--set", *told),
        "variants": ("--data-dir", given.data_dir, "--out", given.out / "variants", *sizes),
    }
    by = {"curves": curves, "methods": methods, "variants": variants}
    one = {"curves": "--run", "methods": "--only", "variants": "--only"}
    lists = {
        kind: [job["name"] for _, job in by[kind].jobs(by[kind].arguments([str(word) for word in words]))]
        for kind, words in given_words.items()
    }
    # the runs that measure full text and no context come first; then in turns, so that both get on
    lists["curves"].sort(key=lambda name: name != "middle")
    turns = [(kind, name) for some in zip_longest(lists) for kind, name in some]
    for kind, name in turns:
        words = (*given_words[kind], one[kind], name, "--results", given.out / "results" / f"{kind}.json")
        after = ("sentence",) if any(word in name for word in ("sentence", "aligned")) else ()
        yield Job(f"{kind}-{name}", [script(kind, *words)], 200, share=SHARE, after=after)


def zip_longest(lists: dict[str, list[str]]) -> Iterator[list[tuple[str, str]]]:
    """The first of each list, then the second, as long as there are any."""
    for number in range(max(map(len, lists.values()))):
        yield [(kind, names[number]) for kind, names in lists.items() if number < len(names)]


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
    yield from asked_for_tokens(given, corpus)
    join = ["wire.links.gpt2.start=sandbox", "corpus.made=30000", *corpus]
    yield Job("codes-join-data", [train(given, "join", given.out / "join-data", *join, "--prepare")], 200, share=0.0)
    out, rounded = given.out / "codes-join", given.out / "codes-rounded"
    told = train(given, "join", out, f"start={rounded}", "minutes=7.5", *join)
    yield Job("codes-join", [told, *shipped(out)], 520, after=("codes", "codes-join-data"))
    yield measured_codes(given, "codes", "4", ["4,8"])
    for name in ("codes", "codes-alone"):
        yield measured_codes(given, name, "8-half", ["8", "--slots", "half", "--codes", "16,14,12,10,8"])
    nq = [word for path in sorted((Path(given.data_dir) / "nq").glob("valid.jsonl*")) for word in ("--nq", str(path))]
    for part, sheets in (("1", ["sandbox-full"]), ("2", ["sandbox-full-half", "sandbox-full-prompt", "nq-valid"])):
        where, into = given.out / f"codes-all-{part}", given.out / "results" / "codes-all"
        words = [str(rounded), "--out", where, "--into", into, "--parallel", 3, "--n", given.n, "--receivers", "llama"]
        words += ["qwen2", *nq, "--only", *(f"{name}.json" for name in sheets)]
        all_rows = [script("evaluate_all", *words)]
        if part == "1":
            all_rows.append(script("fidelity", where / "sandbox-full", "--out", into / "fidelity.json"))
        yield Job(where.name, all_rows, 200 if part == "1" else 360, after=("codes",))


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
        yield measured_codes(given, name, f"{ratio}-half", [ratio, "--slots", "half", "--codes", codes])


def sharded(given: argparse.Namespace) -> Iterator[Job]:
    """A few steps on two GPUs with the encoder whole on each, and split over both."""
    few = ["corpus.windows=4000", "corpus.contexts=2000", "corpus.made=0", "corpus.prompts=0", "corpus.crops=0"]
    few += ["steps=60", "minutes=0", "log_every=1", "eval_every=0", "save_every=0", "graphs=false", "compile=never"]
    for name, more in (("whole", []), ("split", ["shard=true"])):
        out = given.out / f"shard-{name}"
        told = train(given, "wire", out, *few, *more)
        both = [told[0], "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *told[1:]]
        kept = ["cp", str(out / "metrics.jsonl"), str(given.out / "results" / f"shard-{name}.jsonl")]
        yield Job(f"shard-{name}", [both, kept], 80, gpus=2, share=0.25, after=("spans-4x",))


def train(given: argparse.Namespace, config: str, out: Path, *words: str) -> list[str]:
    """A training run of a sandbox config; runs of one config share what is tokenised."""
    path, cache = ROOT / "configs" / "sandbox" / f"{config}.yaml", given.out / f"cache-{config}"
    told = ["--data-dir", str(given.data_dir), "--out", str(out), f"corpus.cache={cache}", *words]
    return [sys.executable, "-m", "latentwire", "train", str(path), *told]


def shipped(out: Path) -> Iterator[list[str]]:
    """The wire of a run in its shipped form, and the same values as an ordinary directory."""
    ship = [sys.executable, "-m", "latentwire.sandbox.ship", str(out / "wire")]
    yield [*ship, f"{out}-shipped"]
    yield [*ship, f"{out}-rounded", "--rounded"]


def measured_codes(given: argparse.Namespace, name: str, rows: str, asked: list[str]) -> Job:
    """1,000 questions for the wire of a job."""
    out = given.out / f"{name}-eval-{rows}"
    words = ["--receivers", "llama,qwen2", "--conditions", "text,none,latents,wrong", "--n", "1000", "--ratio", *asked]
    told = [sys.executable, "-m", "latentwire", "eval", str(given.out / f"{name}-rounded"), *words, "--out", str(out)]
    kept = ["cp", str(out / "results.json"), str(given.out / "results" / f"{name}-{rows}.json")]
    return Job(out.name, [told, kept], 120, share=0.5, after=(name,))


def measured(given: argparse.Namespace) -> Iterator[Job]:
    """What else is measured with the wire; first, that the commands do on a GPU what they do elsewhere."""
    results = given.out / "results"
    cli = [sys.executable, "-m", "latentwire"]
    ask = [*cli, "ask", given.wire, "--text", str(ROOT / "README.md"), "--question", "What does LatentWire send?"]
    few = [*cli, "eval", given.wire, "--n", "50", "--out", str(given.out / "few")]
    yield Job("commands", [ask, few], 40, share=0.5)
    for name, words, seconds in (
        ("composition-1", ("composition", "--slots", 1, "--n", 1000), 200),
        ("composition-2", ("composition", "--slots", 2, "--n", 1000), 200),
        ("eval-speed", ("eval_speed",), 170),
        ("break-even", ("break_even",), 100),
    ):
        kind, *more = words
        command = script(str(kind), "--wire", given.wire, *more, "--out", results / f"{name}-gpu.json")
        yield Job(name, [command], seconds, share=1.0 if "speed" in name or "even" in name else 0.5)
