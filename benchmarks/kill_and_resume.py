"""Fifty steps on random weights of the true shapes, killed and resumed: ``python benchmarks/kill_and_resume.py``.

Receivers of the shapes of Llama 3.1 8B and Qwen2.5 7B and an encoder of that of Llama 3.2 1B (``shapes.py``) are
written to ``--models`` as checkpoints, once; then ``latentwire train configs/llama8b_qwen7b_squad.yaml`` runs on
them, on few passages. At ``--kill`` steps it gets SIGTERM, as from a cluster's scheduler; the same command then goes on
to the end. What is said means nothing, but all of the path is walked: loading, the kept teacher, both stages, saving,
resuming. The figures: where it stopped and went on, loss and seconds of every step, exit codes.

    python benchmarks/kill_and_resume.py --data-dir DIR --models runs/random --out kill-and-resume.json
    python benchmarks/kill_and_resume.py --smoke --data-dir DIR      (small shapes, on a CPU)
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from shapes import SHAPES, facts, model_of

from latentwire.receivers.tokenizer import load_tokenizer
from latentwire.shipped import resolve

ROOT = Path(__file__).resolve().parents[1]
LARGE = ("llama8b", "qwen7b", "llama1b", "qwen0.5b")
"""First receiver, second receiver, encoder, and the lexicon's."""
TINY = ("tiny-llama", "tiny-qwen", "tiny-llama", "tiny-qwen")
LOOK = 0.2


def made(shapes: tuple[str, ...], folder: Path, device: torch.device) -> list[Path]:
    """A checkpoint of each shape with random weights, and a tokenizer that comes along."""
    for shape in dict.fromkeys(shapes):
        where = folder / shape
        if (where / "tokenizer.json").is_file():
            continue
        tokenizer = load_tokenizer(resolve("sandbox:qwen2" if "qwen" in shape else "sandbox:llama"))
        settings = SHAPES[shape][1]
        settings["vocab_size"] = max(settings["vocab_size"], len(tokenizer))
        model_of(shape, device).save_pretrained(where, max_shard_size="5GB")
        tokenizer.save_pretrained(where)  # last: it says that the folder is whole
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return [folder / shape for shape in shapes]


def command(given: argparse.Namespace, models: list[Path]) -> list[str]:
    """The training command; a chat layout needs a tokenizer that has one, and these have none."""
    run = given.run
    plain = "{head: 'Context:'}"
    words = [
        f"wire.links.llama.receiver={models[0]}", f"wire.links.qwen2.receiver={models[1]}",
        f"wire.encoder.init={models[2]}", f"wire.encoder.lexicons=[{models[3]}]",
        f"wire.links.llama.prompt={plain}", f"wire.links.qwen2.prompt={plain}",
        f"corpus.cache={run.parent / 'cache'}", f"objectives.kl.cache={run.parent / 'teacher'}",
        "stages=[{name: align, until: 0.5, questions: 0.0}, {name: squad, until: 1.0, questions: 0.75}]",
        f"steps={given.steps}", "warmup=5", "log_every=1", "eval_every=0", "save_every=1000",
    ]  # fmt: skip
    if given.smoke:
        words += [
            "corpus={windows: 24, contexts: 16, made: 0, dev: 6, crops: 0, threads: 1}", "passages=1", "asks=1",
            "wire.encoder.d_z=16", "wire.links.llama.load={}", "wire.links.qwen2.load={}", "device=cpu",
            "wire.links.llama.injection.width=16", "wire.links.qwen2.injection.width=16",
        ]  # fmt: skip
    else:
        words += ["corpus.windows=6000", "corpus.contexts=300", "corpus.made=0", "corpus.dev=20"]
    words += given.set
    train = [sys.executable, "-m", "latentwire", "train", str(ROOT / given.config), *words, "--out", str(run)]
    return train + (["--data-dir", given.data_dir] if given.data_dir else [])


def steps_of(run: Path) -> list[dict[str, Any]]:
    """Lines of steps in the run's journal."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [line for line in lines if "loss" in line and line["source"] in ("text", "questions")]


def started(words: list[str], log: Path) -> subprocess.Popen:
    with log.open("w") as file:
        return subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)


def main() -> int:
    """The command; exit code 1 if the run did not get to its end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--config", default="configs/llama8b_qwen7b_squad.yaml")
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--models", type=Path, default=Path("runs/random"), help="where checkpoints are, or are made")
    parser.add_argument("--run", type=Path, default=Path("runs/killed/run"), help="folder of the run (a fresh one)")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--kill", type=int, default=24, help="steps that are to be done when SIGTERM comes")
    parser.add_argument("--wait", type=float, default=600, help="seconds at most until then, and for the rest")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of the config")
    parser.add_argument("--smoke", action="store_true", help="small shapes on a CPU")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    given = parser.parse_args()
    if steps_of(given.run):
        parser.error(f"--run {given.run} holds a run already; name a fresh folder")
    given.run = given.run.resolve()
    given.run.parent.mkdir(parents=True, exist_ok=True)
    shapes = TINY if given.smoke else LARGE
    gpu = torch.cuda.is_available() and not given.smoke
    device = torch.device("cuda" if gpu else "cpu")
    words = command(given, made(shapes, given.models.resolve(), device))
    began = time.monotonic()
    first = started(words, given.run.parent / "first.txt")
    while first.poll() is None and len(steps_of(given.run)) < given.kill and time.monotonic() - began < given.wait:
        time.sleep(LOOK)
    first.send_signal(signal.SIGTERM)
    killed = first.wait()
    before, seconds = steps_of(given.run), [time.monotonic() - began]
    print(f"killed behind step {before[-1]['step'] if before else 0}, exit code {killed}", flush=True)
    again = started(words, given.run.parent / "second.txt")
    try:
        ended = again.wait(given.wait)
    except subprocess.TimeoutExpired:
        again.kill()
        ended = again.wait()
    seconds.append(time.monotonic() - began - seconds[0])
    lines = steps_of(given.run)
    after = lines[len(before) :]
    found = {
        **facts(device), "config": given.config, "shapes": shapes, "random_weights": True, "set": given.set,
        "killed_at": before[-1]["step"] if before else 0, "resumed_at": after[0]["step"] if after else None,
        "ended_at": lines[-1]["step"] if lines else 0, "exit_codes": [killed, ended],
        "whole_seconds": [round(value, 1) for value in seconds],
        "step_seconds": {
            source: round(median(each), 3)
            for source in ("text", "questions") if (each := [x["step_seconds"] for x in lines if x["source"] == source])
        },
        "steps": [{key: line[key] for key in ("step", "source", "draw", "loss", "step_seconds")} for line in lines],
    }  # fmt: skip
    text = json.dumps(found, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")
    numbers = [line["step"] for line in lines]
    return int(ended != 0 or numbers != list(range(1, given.steps + 1)))


if __name__ == "__main__":
    sys.exit(main())
