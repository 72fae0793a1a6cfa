"""Measure a wire on everything that README and cards quote: ``python benchmarks/evaluate_all.py WIRE --out DIR``.

One process for each receiver, condition and ratio, side by side on the GPUs there are (75 rows, most of them of 4,851
questions, take about a minute and a half on two H100s); then the rows of each quoted file are joined into ``DIR/NAME``
and, with ``--into``, copied to where the tables are made from. What is measured is not measured again. Stopped rows and
failed ones are named at the end; the same command tries them again.

    python benchmarks/evaluate_all.py sandbox --out runs/all --nq DIR/nq/valid.jsonl.zst --parallel 10
    python benchmarks/evaluate_all.py WIRE --out runs/all --only sandbox-full.json --n 200
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from latentwire.experiments import processes

MAIN, ALL = ("llama", "qwen2"), ("llama", "qwen2", "gpt2")
CONTROLS = ("wrong", "zero,shuffled")


@dataclass(frozen=True)
class Sheet:
    """The rows of one quoted file. bits: of the latents. nq: asked
    of nq/valid instead of squad/valid."""

    receivers: tuple[str, ...] = MAIN
    conditions: tuple[str, ...] = ("latents", *CONTROLS, "budget-question")
    ratios: tuple[int, ...] = (4, 8, 16)
    bits: str = "16"
    mode: str = "context"
    slots: str = ""
    nq: bool = False


SHEETS: dict[str, Sheet] = {
    "sandbox-full.json": Sheet(bits="16,8,4"),
    "sandbox-full-half.json": Sheet(conditions=("latents", "wrong", "budget-question"), ratios=(4, 8), slots="half"),
    "sandbox-full-prompt.json": Sheet(conditions=("latents", "wrong"), ratios=(4, 8), mode="prompt"),
    "sandbox-join.json": Sheet(receivers=("gpt2",), bits="16,8,4"),
    "sandbox-join-prompt.json": Sheet(
        receivers=("gpt2",), conditions=("latents", "wrong"), ratios=(4, 8), mode="prompt"
    ),
    "sandbox-vectors.json": Sheet(receivers=ALL, conditions=("pca", "mean-pooled", "same-bytes")),
    "nq-valid.json": Sheet(receivers=ALL, conditions=("latents", "wrong", "budget-question"), nq=True),
}


@dataclass(frozen=True)
class Job:
    """Rows that one process measures, into a folder of their own."""

    wire: str
    folder: str
    receiver: str
    conditions: str
    ratios: tuple[int, ...]
    bits: str
    mode: str
    slots: str
    questions: str
    n: int


def jobs(given: argparse.Namespace) -> dict[str, list[Job]]:
    """What is to be measured for each file, the rows of text and of nothing first: others' retention needs them."""
    todo: dict[str, list[Job]] = {}
    for name in given.only or SHEETS:
        sheet = SHEETS[name]
        sheet = replace(
            sheet,
            conditions=tuple(c for c in sheet.conditions if not given.conditions or c in given.conditions),
            ratios=tuple(r for r in sheet.ratios if not given.ratios or r in given.ratios),
            bits=given.bits or sheet.bits,
        )
        if sheet.nq and not given.nq:
            continue
        questions = given.nq if sheet.nq else ""
        todo[name] = []
        for receiver in [r for r in sheet.receivers if not given.receivers or r in given.receivers]:
            parts = [("text,none", sheet.ratios[:1], "16")]
            for conditions in sheet.conditions:
                bits = sheet.bits if conditions == "latents" else "16"
                parts += [(conditions, (ratio,), bits) for ratio in sheet.ratios]
            for conditions, ratios, bits in parts:
                where = f"{receiver}-{conditions.replace(',', '-')}-{ratios[0]}"
                # text and nothing are the same for every mode and number of slots: measured once
                shared = "nq" if sheet.nq else "text" if conditions == "text,none" else Path(name).stem
                folder = given.out / "rows" / shared / where
                mode, slots = ("context", "") if conditions == "text,none" else (sheet.mode, sheet.slots)
                todo[name].append(
                    Job(given.wire, str(folder), receiver, conditions, ratios, bits, mode, slots, questions, given.n)
                )
    return todo


def work(job: Job) -> None:
    """One process: measure, unless it is measured."""
    import torch

    from latentwire import Wire
    from latentwire.data.rows import read_examples
    from latentwire.data.squad import shipped_valid
    from latentwire.evaluation.runner import evaluate

    device = "cuda" if torch.cuda.is_available() else "cpu"
    wire = Wire.from_pretrained(job.wire, device=device, receivers=[job.receiver])
    examples = read_examples(job.questions or shipped_valid())
    evaluate(
        wire, examples[: job.n] if job.n else examples, ratios=job.ratios, bits=[int(b) for b in job.bits.split(",")],
        conditions=job.conditions.split(","), mode=job.mode, slots=job.slots or None, out=Path(job.folder),
        progress=False,
    )  # fmt: skip
    (Path(job.folder) / "done").touch()


def run_one(job: Job, gpu: str | None, parallel: int) -> str | None:
    """Start the process of a job; returns why it failed."""
    folder = Path(job.folder)
    if (folder / "done").is_file():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("w") as log:
        code = subprocess.run(
            [sys.executable, __file__, "--work", json.dumps(asdict(job))], stdout=log, stderr=subprocess.STDOUT,
            check=False, env=processes.environment(gpu, parallel),
        ).returncode  # fmt: skip
    return None if code == 0 else processes.reason(folder / "log.txt", code)


def join(name: str, own: list[Job], wire: str, out: Path, into: Path | None) -> None:
    """The rows of a file together in ``out/NAME``."""
    from latentwire import Wire
    from latentwire.evaluation.merge import merge

    folder = out / Path(name).stem
    # kinds of answers are told apart by the tokenizers of the two that share the wire
    both = Wire.from_pretrained(wire, receivers=list(MAIN)) if name == "sandbox-full.json" else None
    folders = [Path(job.folder) for job in own]
    # text and nothing stand last: what the file is of is decided by the first folder
    merge(folder, sorted(folders, key=lambda path: "text-none" in path.name), both)
    if into is not None:
        into.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "results.json", into / name)


def main() -> int:
    """The command; exit code 1 if rows are missing."""
    if sys.argv[1:2] == ["--work"]:
        tree = json.loads(sys.argv[2])
        tree["ratios"] = tuple(tree["ratios"])
        work(Job(**tree))
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("wire", help="a directory, or `sandbox`")
    parser.add_argument("--out", type=Path, required=True, help="folder of rows and of joined results")
    parser.add_argument("--only", nargs="*", default=[], choices=SHEETS, metavar="FILE", help=f"of {', '.join(SHEETS)}")
    parser.add_argument("--receivers", nargs="*", default=[], help="of the wire's")
    parser.add_argument("--conditions", nargs="*", default=[], help="of the files', for example latents")
    parser.add_argument("--ratios", nargs="*", type=int, default=[], help="of the files'")
    parser.add_argument("--bits", default="", help="of the latents, instead of the files'")
    parser.add_argument("--nq", default="", help="file of nq/valid (else that sheet is left out)")
    parser.add_argument("--n", type=int, default=0, help="the first so many questions (0: all)")
    parser.add_argument("--parallel", type=int, default=1, help="processes side by side, over all GPUs")
    parser.add_argument("--into", type=Path, help="folder that the joined files are copied to")
    given = parser.parse_args()
    given.out = given.out.resolve()
    todo = jobs(given)
    every = list({job.folder: job for own in todo.values() for job in own}.values())
    failed: dict[str, str] = {}

    def over(job: Job, why: str | None) -> None:
        if why:
            failed[job.folder] = why
        print(f"{Path(job.folder).relative_to(given.out / 'rows')}: {why or 'measured'}", file=sys.stderr, flush=True)

    gpus = processes.visible_gpus()
    processes.run_all(every, given.parallel, gpus, lambda job, gpu: run_one(job, gpu, given.parallel), over)
    if failed:  # most often for want of memory beside others: once more, one at a time on each GPU
        again, alone = [job for job in every if job.folder in failed], max(1, len(gpus))
        failed.clear()
        processes.run_all(again, alone, gpus, lambda job, gpu: run_one(job, gpu, alone), over)
    for name, own in todo.items():
        if any(job.folder in failed for job in own):
            print(f"{name}: not whole", file=sys.stderr)
        elif own:
            join(name, own, given.wire, given.out, given.into)
            print(f"{name}: {given.out / Path(name).stem}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
