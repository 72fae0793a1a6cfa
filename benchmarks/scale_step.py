"""Time the training step of large receivers: ``python benchmarks/scale_step.py [--receivers llama8b qwen7b]``.

Receivers of the shapes of Llama 3.1 8B and Qwen2.5 7B with random weights (see ``shapes.py``), an encoder of that of
Llama 3.2 1B that learns in full, 64 passages of 256 tokens as 64 latents with 40 tokens of question and answer behind
each, and a kept teacher. Two receivers are on a GPU each where there are two, the encoder beside the second.
``--receivers sandbox``: those that come along.

Two sides in one run: ``ours``, the step of ``latentwire train``, and ``plain``, the loop that one would write first. It
encodes and goes back through the encoder for one receiver after the other, has the teacher read the text in every step,
makes the logits of all tokens, keeps what layers work out, and compiles nothing; the optimiser is the same. A side that
does not fit into memory is done in twice as many parts.

Utilisation is of FLOPs counted by torch while a step of two passages runs: forward and backward of what the step needs
at least (targets alone meet the head, the teacher is kept), nothing that is worked out twice, no optimiser. It is the
same number for both sides, over the dense bf16 peak of the GPUs in use.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from shapes import TEXTS, attempt, facts, fresh_peak, kernels, peak_gib, sync, wire_of
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from latentwire.adapters.mlp import MLPAdapterConfig
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.injections.kv_column import KVColumnConfig
from latentwire.link import LinkConfig
from latentwire.objectives.answer import AnswerConfig
from latentwire.objectives.kl import KLConfig
from latentwire.receivers.rows import row_states
from latentwire.training.config import CorpusConfig, Draw, Stage, TrainConfig
from latentwire.training.loop import Loop
from latentwire.training.pieces import split
from latentwire.training.setup import Run, assemble
from latentwire.training.store import Store
from latentwire.training.teacher import Kept
from latentwire.training.throughput import peak_flops
from latentwire.training.work import Work
from latentwire.wire import Wire, WireConfig

TOKENS, RATIO, ROW, ASKED, TOP = 256, 4, 40, 28, 32
"""Tokens of a passage, tokens a latent, tokens of a question with its answer and of those the question's; likeliest
tokens of a kept teacher."""


def config_of(passages: int, recompute: list[str], head_tokens: int, compiled: str, optimizer: str) -> TrainConfig:
    """The run that the step is of."""
    return TrainConfig(
        objectives={"answer": AnswerConfig(question=0.2), "kl": KLConfig(top=TOP)},
        corpus=CorpusConfig(longest=TOKENS, row=ROW, asked=ROW, stretch=1.0),
        stages=[Stage(1.0, 1.0)], draws=[Draw(RATIO)], steps=100_000, passages=passages, asks=1, optimizer=optimizer,
        recompute=recompute, head_tokens=head_tokens, compile=compiled, rate=1e-4, encoder_rate=1e-5,
    )  # fmt: skip


def sandbox(device: torch.device) -> Wire:
    """A new wire between two readers that come along, in the shapes of ``configs/sandbox/wire.yaml``."""
    links = {
        name: LinkConfig(f"sandbox:{name}", MLPAdapterConfig((1,), 2, 0.0), KVColumnConfig(512, 0.45))
        for name in ("llama", "qwen2")
    }
    encoder = LMEncoderConfig(init="sandbox:llama", d_z=512, ratios=(RATIO,), window=TOKENS)
    return Wire.create(WireConfig(encoder, links), TEXTS, device)


def ready(config: TrainConfig, wire: Wire, device: torch.device) -> Run:
    """The step on random tokens, its teacher kept: passages of full length, one question each."""
    rng, n, names = np.random.default_rng(0), 4 * config.passages, wire.receivers
    tokenizer: Any = wire.encoder.tokenizer
    begin = 0 if tokenizer.bos_token_id is None else 1

    def ids(rows: int, width: int) -> np.ndarray:
        return rng.integers(3, 1000, (rows, width), dtype=np.int32)

    full = np.full(n, TOKENS, np.int32)
    asked = {"asks": np.full(n, ASKED, np.int32), "length": np.full(n, ROW, np.int32)}
    read = {name: {"ids": ids(n, TOKENS), "count": full, "questions": ids(n, ROW), **asked} for name in names}
    store = Store({"ids": ids(n, begin + TOKENS), "count": full}, read, np.arange(n), np.ones(n, np.int64))
    run = assemble(config, wire, names, {"questions": store}, device)
    batches = run.stores["questions"]
    assert batches is not None
    first = torch.ones(n, dtype=torch.long)
    for name in names:
        logs = torch.randn(n, ROW - 1, TOP + 1, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
        likely = torch.from_numpy(ids(n, (ROW - 1) * TOP)).reshape(n, ROW - 1, TOP)
        batches.kept[name] = Kept(first, likely, logs).to(device)
    return run


def drawn(loop: Loop) -> Work:
    """What the next step computes on."""
    generator = torch.Generator(loop.accelerator.device).manual_seed(0)
    return loop.trainer.work("questions", "context", loop.progress.step, generator)


def count(loop: Loop, passages: int) -> float:
    """FLOPs of a step of so many passages that none can do without."""
    step, again = loop.run.step, []
    stacks = [*loop.run.wire.encoder.stacks, *(loop.run.wire.frozen[name].layers for name in loop.run.names)]
    for stack in stacks:
        again.append(stack.again)
        stack.again = False
    held, step.held = step.held, 0
    parts = max(passages // 2, 1)
    work = split(drawn(loop), parts, step)[0][0]
    with FlopCounterMode(display=False) as counter, loop.accelerator.autocast():
        loss, _ = step.losses(work, RATIO)
        loss.backward()
    loop.trainer.optimizer.zero_grad(set_to_none=True)
    for stack, value in zip(stacks, again, strict=True):
        stack.again = value
    step.held = held
    return counter.get_total_flops() * passages / work.passages


def plain(loop: Loop, parts: int) -> None:
    """One step as one would write it first, in so many parts."""
    wire, step, trainer = loop.run.wire, loop.run.step, loop.trainer
    for work, share in split(drawn(loop), parts, step):
        for name in loop.run.names:
            receiver = wire.get_receiver(name)
            read = work.of(name, receiver.device)
            with loop.accelerator.autocast():
                prefix = wire.prefix(name, wire.encoder(work.source, RATIO))
                h_BRTE = row_states(receiver, prefix, read["rows"])
                logits_NV = receiver.logits(h_BRTE[:, :, :-1].flatten(0, 2))
                with torch.no_grad():
                    told = step.teacher(receiver, read["context"], read["count"], read["rows"])
                    told_NV = receiver.logits(told[:, :, :-1].flatten(0, 2)).log_softmax(-1)
                labels_N, weight_N = read["rows"][..., 1:].flatten(), read["weight"][..., 1:].flatten()
                ce_N = F.cross_entropy(logits_NV, labels_N, reduction="none")
                kl_N = F.kl_div(logits_NV.log_softmax(-1), told_NV, reduction="none", log_target=True).sum(-1)
                loss = ((ce_N + kl_N) * weight_N).sum() / weight_N.sum() * share / len(loop.run.names)
            loss.backward()
    torch.nn.utils.clip_grad_norm_(trainer.parameters, 1.0)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)


def measured(work: Callable[[], Any], steps: int) -> dict[str, Any]:
    """Seconds of a step, behind three that do not count."""
    fresh_peak()
    begun = time.perf_counter()
    for _ in range(3):
        work()
    sync()
    first, begun = time.perf_counter() - begun, time.perf_counter()
    for _ in range(steps):
        work()
    sync()
    seconds = (time.perf_counter() - begun) / steps
    return {"step_seconds": round(seconds, 4), "first_seconds": round(first, 1), "peak_gib": peak_gib()}


def plain_side(loop: Loop, steps: int, passages: int) -> dict[str, Any]:
    """The plain loop in as few parts as fit."""
    parts = 1
    while parts <= passages:
        found = attempt(lambda parts=parts: measured(lambda: plain(loop, parts), steps))
        if found is not None:
            return {**found, "parts": parts}
        loop.trainer.optimizer.zero_grad(set_to_none=True)
        parts *= 2
    return {"fits": False}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--receivers", nargs="+", default=["llama8b", "qwen7b"], help="names in shapes.py, or sandbox")
    parser.add_argument("--encoder", default="llama1b", help="a name in shapes.py")
    parser.add_argument("--passages", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--devices", type=int, default=2, help="GPUs at most")
    parser.add_argument("--recompute", nargs="*", default=[], help="encoder, receivers, or names of receivers")
    parser.add_argument("--head-tokens", type=int, default=0)
    parser.add_argument("--compile", choices=("auto", "never"), default="auto")
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--sides", nargs="+", choices=("ours", "plain"), default=["ours", "plain"])
    parser.add_argument("--profile", type=Path, help="write a table of our step's kernels here")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON); written again behind each side")
    given = parser.parse_args()
    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    home = accelerator.device
    if given.receivers == ["sandbox"]:
        wire, given.encoder = sandbox(home), "sandbox:llama"
    else:
        gpus = min(given.devices, torch.cuda.device_count(), len(given.receivers)) if home.type == "cuda" else 0
        # the encoder, with what its optimiser holds, is on the first GPU, beside the last receiver
        places = [torch.device("cuda", (gpus - 1 - n) % gpus) if gpus else home for n in range(len(given.receivers))]
        wire = wire_of(dict(zip(given.receivers, places, strict=True)), given.encoder, home, (RATIO,))
    config = config_of(given.passages, given.recompute, given.head_tokens, given.compile, given.optimizer)
    run = ready(config, wire, home)
    loop = Loop(config, run, accelerator, Path())
    loop.enter_stage()
    flops, tokens = count(loop, given.passages), given.passages * (TOKENS + ROW * len(run.names))
    peak = peak_flops(home)
    learning = sum(p.numel() for p in loop.trainer.parameters)
    found: dict[str, Any] = {**facts(home), "receivers": run.names, "places": sorted(map(str, run.devices))}
    found |= {"encoder": given.encoder, "passages": given.passages, "latents": -(-TOKENS // RATIO), "row": ROW}
    found |= {"recompute": given.recompute, "head_tokens": given.head_tokens, "compiled": run.compiled}
    found |= {"optimizer": given.optimizer}
    found |= {"learning": learning, "flops": flops, "tokens": tokens, "sides": {}}
    for side in given.sides:
        if side == "ours":
            run.compile()
            row = attempt(lambda: measured(loop.advance, given.steps)) or {"fits": False}
            row["parts"] = max(loop.trainer.passes.pieces.values(), default=1)
            if given.profile and "step_seconds" in row:
                kernels(loop.advance, side, given.profile)
            run.compile(False)
        else:
            for stack in [*wire.encoder.stacks, *(wire.frozen[name].layers for name in run.names)]:
                stack.again = False
            row = plain_side(loop, given.steps, given.passages)
        if "step_seconds" in row:
            row["tokens_per_second"] = round(tokens / row["step_seconds"])
            rate = flops / row["step_seconds"]
            row["utilisation"] = None if peak is None else round(rate / peak / len(run.devices), 4)
        found["sides"][side] = row
        print(side, json.dumps(row), flush=True)
        if given.out:
            given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
