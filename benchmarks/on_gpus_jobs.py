"""What ``benchmarks/on_gpus.py`` does, the most wanted first: commands that docs name, and how long they took."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from on_gpus_job import ROOT, SHARE, Job, script
from on_gpus_wires import sharded, trained


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
    for name in (
        "sandbox-full",
        "sandbox-full-half",
        "sandbox-full-prompt",
        "sandbox-join",
        "sandbox-join-prompt",
        "nq-valid",
    ):
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
