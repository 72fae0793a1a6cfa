"""Steps in which a receiver reads something else than latents and true answers: text, or its own words.

Both are written into a step's work as tensors of a fixed shape, so that such a step can be recorded like any other.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from latentwire.receivers import Receiver
from latentwire.training.work import Work
from latentwire.types import Prefix

CHUNK = 8192  # rows of logits at a time: a large vocabulary in float32 is gigabytes


def mixed(work: Work, source: str, text: float, beside: bool, own: float, generator: torch.Generator) -> Work:
    """The work of a step with a share ``text`` of its passages given as text, and a share ``own`` of its answer tokens
    as the receiver's own predictions (in steps of questions)."""
    if not work.read or (text <= 0 and (own <= 0 or source != "questions")):
        return work
    read = {name: dict(tensors) for name, tensors in work.read.items()}
    if text > 0:
        first = next(iter(read.values()))["count"]
        luck_B = torch.rand(first.shape, generator=generator, device=first.device)
        for tensors in read.values():
            tensors["beside" if beside else "instead"] = luck_B < text
    if own > 0 and source == "questions":
        for tensors in read.values():
            luck_BRT = torch.rand(tensors["rows"].shape, generator=generator, device=tensors["rows"].device)
            tensors["own"] = (luck_BRT < own) & (tensors["weight"] >= 1)
    return replace(work, read=read)


def with_text(receiver: Receiver, prefix: Prefix, read: dict[str, Tensor]) -> Prefix:
    """The prefix with the text of some passages in it: beside the latents, or instead of them."""
    beside = read.get("beside")
    chosen_B = read["instead"] if beside is None else beside
    ids_BT, head = read["context"], receiver.head_for(len(chosen_B))
    mask_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < read["count"][:, None]
    with torch.no_grad():
        text = receiver.read(ids_BT, mask_BT, head)
    start = head.mask_BM.shape[1]
    # every prefix begins with the head: it is there once
    kv = [
        (torch.cat([k, t[:, :, start:].to(k.dtype)], 2), torch.cat([v, u[:, :, start:].to(v.dtype)], 2))
        for (k, v), (t, u) in zip(prefix.kv, text.kv, strict=True)
    ]
    kept_BM, blocks = prefix.mask_BM.expand(len(chosen_B), -1), prefix.blocks
    if beside is None:
        of_head = torch.arange(kept_BM.shape[1], device=kept_BM.device) < start
        kept_BM = kept_BM & (of_head | ~chosen_B[:, None])
        blocks = tuple(replace(block, mask_BM=block.mask_BM & ~chosen_B[:, None]) for block in blocks)
    mask_BM = torch.cat([kept_BM, text.mask_BM[:, start:] & chosen_B[:, None]], 1)
    next_B = torch.where(chosen_B, text.next_B, prefix.next_B)
    # LoRA of the link stays on: it is one of the things that may learn from text too
    at_BM = None
    if prefix.positions_BM is not None and text.positions_BM is not None:
        at_BM = torch.cat([prefix.positions_BM.expand(len(chosen_B), -1), text.positions_BM[:, start:]], 1)
    return replace(prefix, kv=kv, mask_BM=mask_BM, next_B=next_B, blocks=blocks, positions_BM=at_BM)


@torch.no_grad()
def with_own_tokens(receiver: Receiver, h_BRTE: Tensor, ids_BRT: Tensor, own_BRT: Tensor) -> Tensor:
    """Rows [B, R, T] with the tokens at ``own_BRT`` as the receiver predicts them from ``h_BRTE``, states of the rows
    as they are. A row's first token is never replaced."""
    parts = [receiver.logits(h_NE).argmax(-1) for h_NE in h_BRTE[:, :, :-1].flatten(0, 2).split(CHUNK)]
    said_BRT = torch.cat(parts).reshape(*ids_BRT.shape[:2], -1)
    return torch.cat([ids_BRT[..., :1], torch.where(own_BRT[..., 1:], said_BRT, ids_BRT[..., 1:])], -1)
