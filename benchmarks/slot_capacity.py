"""What a receiver's slots could hold: ``python benchmarks/slot_capacity.py WIRE RECEIVER [--ratio 8]``.

The keys and values that a trained link makes for a few passages are taken as a start and changed directly by gradient,
passage by passage, with no encoder and no link in the way, until the frozen receiver recalls the passage from them
(cued windows, against the same receiver with the text). Questions about the passages take no part. What they gain
is what encoder and link leave lying; what remains is a bound of the slots themselves (from above: a better way to
change them would find better ones).

Writes JSON: answer loss and divergence from the reader with the text, in nats a token, at every few steps.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from latentwire.data.rows import data_dir
from latentwire.data.squad import load_split
from latentwire.errors import UserError
from latentwire.objectives.kl import KLConfig
from latentwire.receivers import Receiver
from latentwire.receivers.receiver import pad
from latentwire.receivers.rows import row_states
from latentwire.training.judging import token_losses
from latentwire.types import Prefix
from latentwire.wire import Wire

WINDOW, CUE, ROWS, ASKED = 44, 4, 4, 44


def passages(data: Path, count: int, seed: int) -> list[tuple[str, list[tuple[str, str]]]]:
    """Passages of the slice kept aside, each with four questions and answers."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for example in load_split(data, "dev"):
        found[example.context].append((example.question, example.answers[0]))
    fitting = [(text, asked[:ROWS]) for text, asked in found.items() if len(asked) >= ROWS and 500 < len(text) < 900]
    return Random(seed).sample(fitting, min(count, len(fitting)))


def question_rows(receiver: Receiver, asked: list[list[tuple[str, str]]]) -> tuple[Tensor, Tensor]:
    """Rows [B, R, T] of questions with their answers, and the weight of each token: 1 in answers."""
    prompt = receiver.prompt
    ids = torch.full((len(asked), ROWS, ASKED), prompt.pad_id)
    weight = torch.zeros(ids.shape)
    for b, pairs in enumerate(asked):
        questions, answers = zip(*pairs, strict=True)
        for r, (q, a) in enumerate(
            zip(prompt.question_ids(list(questions)), prompt.answer_ids(list(answers)), strict=True)
        ):
            row = (q + a)[:ASKED]
            ids[b, r, : len(row)] = torch.tensor(row)
            weight[b, r, len(q) : len(row)] = 1.0
    return ids.to(receiver.device), weight.to(receiver.device)


def judged(receiver: Receiver, prefix: Prefix, rows: Tensor, weight: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and divergence of the weighted tokens."""
    picked = weight[..., 1:] > 0
    h = row_states(receiver, prefix, rows)[:, :, :-1][picked]
    ce, _, (kl,) = token_losses(
        receiver, h, rows[..., 1:][picked], teacher[:, :, :-1][picked], (KLConfig().build().measure,)
    )
    return ce.mean(), kl.mean()


def search(wire: Wire, name: str, ratio: int, slots: int | None, groups: list, steps: int, rate: float,
           every: int, seed: int) -> list[dict[str, Any]]:  # fmt: skip
    """Change the slots' keys and values for so many steps; figures of the questions along the way."""
    receiver = wire.get_receiver(name)
    texts, generator = [text for text, _ in groups], torch.Generator().manual_seed(seed)
    mask_BT, ids_BT = pad(receiver.prompt.context_ids(texts), receiver.prompt.pad_id, receiver.device)
    count_B, newline = mask_BT.sum(-1), receiver.prompt.ids(["\n"])[0][-1]
    asked, asked_weight = question_rows(receiver, [pairs for _, pairs in groups])
    with torch.no_grad():
        start = wire.prefix(name, wire.encode_latents(texts, ratio), "context", slots)
        told = receiver.read(ids_BT, mask_BT, receiver.head_for(len(texts)))
        teacher = row_states(receiver, told, asked)
    head = receiver.head().mask_BM.shape[1]
    made = torch.stack([torch.stack(pair) for pair in start.kv])[:, :, :, :, head:]  # L 2 B H S K
    scale = made.std(dim=(2, 4, 5), keepdim=True)
    change = torch.zeros_like(made, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=rate, betas=(0.9, 0.95))

    def prefix() -> Prefix:
        kv = []
        for (k, v), (new_k, new_v) in zip(start.kv, made + change * scale, strict=True):
            kv.append((torch.cat([k[:, :, :head], new_k], 2), torch.cat([v[:, :, :head], new_v], 2)))
        return Prefix(kv, start.mask_BM, start.next_B, positions_BM=start.positions_BM)

    figures, began = [], time.time()
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            with torch.no_grad():
                ce, kl = judged(receiver, prefix(), asked, asked_weight, teacher)
            figures.append({"step": step, "answer": round(float(ce), 4), "divergence": round(float(kl), 4)})
            print(json.dumps(figures[-1] | {"seconds": round(time.time() - began)}), flush=True)
        luck = torch.rand(len(texts), ROWS, generator=generator).to(receiver.device)
        first = (luck * (count_B[:, None] - WINDOW // 2).clamp_min(1)).long()
        index = first[..., None] + torch.arange(WINDOW - 1, device=receiver.device)
        words = ids_BT[:, None].expand(-1, ROWS, -1).gather(2, index.clamp_max(ids_BT.shape[1] - 1))
        rows = torch.cat([torch.full_like(words[..., :1], newline), words], 2)
        there = (index < count_B[:, None, None]) & (torch.arange(WINDOW - 1, device=receiver.device) >= CUE)
        weight = torch.cat([torch.zeros_like(there[..., :1]), there], 2).float()
        with torch.no_grad():
            read = row_states(receiver, told, rows)
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / (steps + 1))
        ce, kl = judged(receiver, prefix(), rows, weight, read)
        optimizer.zero_grad()
        (ce + kl).backward()
        optimizer.step()
    return figures


def main() -> None:
    """The command."""
    try:
        _main()
    except UserError as error:
        sys.exit(f"error: {error}")


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("wire")
    parser.add_argument("receiver")
    parser.add_argument("--ratio", type=int, default=8, help="source tokens per latent")
    parser.add_argument("--slots", type=int, default=None, help="slots for each latent; the link's first if left out")
    parser.add_argument("--passages", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=25, help="steps between two figures")
    parser.add_argument("--rate", type=float, default=0.03, help="in deviations of the made keys and values")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wire = Wire.from_pretrained(asked.wire, device=device, receivers=[asked.receiver]).requires_grad_(False)
    groups = passages(data_dir(asked.data_dir), asked.passages, asked.seed)
    figures = search(wire, asked.receiver, asked.ratio, asked.slots, groups, asked.steps, asked.rate, asked.every,
                     asked.seed)  # fmt: skip
    result = {
        "encoder": wire.fingerprint.hex(), "receiver": asked.receiver, "ratio": asked.ratio, "slots": asked.slots,
        "passages": len(groups), "questions": ROWS * len(groups), "seed": asked.seed, "rate": asked.rate,
        "device": device, "torch": torch.__version__, "python": platform.python_version(), "figures": figures,
    }  # fmt: skip
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
