"""Batched decoding on top of a prefix: greedy or sampled, rows that have ended leave the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from latentwire.receivers.receiver import Receiver, pad
from latentwire.types import Generated, Prefix


@torch.no_grad()
def generate(
    receiver: Receiver,
    prefix: Prefix,
    tails: list[list[int]],
    max_new_tokens: int = 32,
    min_new_tokens: int = 0,
    temperature: float = 0.0,
    seed: int = 0,
) -> Generated:
    """Continue ``tails`` (question and anchor ids, one per prefix row) until the end token.

    temperature 0 is greedy. min_new_tokens: steps for which the end token is banned.
    """
    eos = receiver.prompt.eos_id
    mask_BT, ids_BT = pad(tails, receiver.prompt.pad_id, receiver.device, left=True)
    generator = torch.Generator(receiver.device).manual_seed(seed)
    out: list[list[int]] = [[] for _ in tails]
    live_N = torch.arange(len(tails), device=receiver.device)
    step_ids, step_mask = ids_BT, mask_BT
    for step in range(max_new_tokens):
        seen: list[tuple[Tensor, Tensor]] = []
        positions = prefix.next_B[:, None] + (step_mask.long().cumsum(-1) - 1).clamp_min(0)
        own = (
            step_mask[:, None, :]
            & torch.ones(step_mask.shape[1], step_mask.shape[1], device=step_mask.device).tril().bool()
        )
        own = own | torch.eye(step_mask.shape[1], dtype=torch.bool, device=step_mask.device)
        h_BTE = receiver.states(step_ids, positions_BT=positions, own_BTT=own, prefix=prefix, seen=seen)
        prefix = Prefix(seen, torch.cat([prefix.mask_BM, step_mask], 1), positions[:, -1] + 1)
        logits_BV = receiver.logits(h_BTE[:, -1])
        if step < min_new_tokens:
            logits_BV[:, eos] = float("-inf")
        if temperature > 0:
            chosen_B = torch.multinomial((logits_BV / temperature).softmax(-1), 1, generator=generator)[:, 0]
        else:
            chosen_B = logits_BV.argmax(-1)
        going_B = chosen_B != eos
        for row, token, going in zip(live_N.tolist(), chosen_B.tolist(), going_B.tolist(), strict=True):
            if going:
                out[row].append(token)
        if not going_B.any():
            break
        if not going_B.all():
            keep_N = going_B.nonzero()[:, 0]
            live_N, chosen_B, prefix = live_N[keep_N], chosen_B[keep_N], prefix.take(keep_N)
        step_ids = chosen_B[:, None]
        step_mask = torch.ones_like(step_ids, dtype=torch.bool)
    return Generated([text.strip() for text in receiver.tokenizer.batch_decode(out, skip_special_tokens=True)], out)
