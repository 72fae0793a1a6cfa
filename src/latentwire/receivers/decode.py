"""Batched decoding on top of a prefix: greedy or sampled, rows that have ended leave the batch.

Keys and values are written into room that is made once: joining them anew for every token would copy all of the
context's for each of them, and that is most of a decoding step's time. A receiver that records its passes
(``Receiver.record``) has a room of fixed shape in place of one whose steps grow.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from latentwire.receivers.attention import own_causal
from latentwire.receivers.kernels import DECODING
from latentwire.receivers.receiver import Receiver, pad
from latentwire.types import Generated, Prefix

Choose = Callable[[int, list[int], Tensor], Tensor]

LEAVE = 0.75
"""Ended rows leave once no more than this share of a batch goes on: leaving copies what is held."""


@dataclass(frozen=True)
class FirstToken:
    """Draws a token at a temperature among the likeliest that together have the probability ``top_p`` (nucleus
    sampling, Holtzman et al. 2020). luck_B: of each row a number in [0, 1) that decides, so that a row's token does not
    depend on the rows beside it."""

    temperature: float
    top_p: float
    luck_B: Tensor

    def __call__(self, logits_BV: Tensor) -> Tensor:
        """Token ids [B]."""
        p_BV, ids_BV = (logits_BV / self.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
        # what comes before the likeliest is nothing, so at least that one stays
        p_BV = p_BV.masked_fill(p_BV.cumsum(-1) - p_BV >= self.top_p, 0)
        edge_BV = p_BV.cumsum(-1)
        reach_B1 = self.luck_B.to(edge_BV)[:, None] * edge_BV[:, -1:]
        # rounding must not reach past the last that stays
        place_B = (edge_BV <= reach_B1).sum(-1).minimum((p_BV > 0).sum(-1) - 1)
        return ids_BV.gather(1, place_B[:, None])[:, 0]


@torch.no_grad()
def generate(
    receiver: Receiver,
    prefix: Prefix,
    tails: list[list[int]],
    max_new_tokens: int = 32,
    min_new_tokens: int = 0,
    temperature: float = 0.0,
    seed: int = 0,
    first: FirstToken | None = None,
    stop: Callable[[list[int]], bool] | None = None,
) -> Generated:
    """Continue ``tails`` (question and anchor ids, one per prefix row) until the end token.

    temperature 0 is greedy. min_new_tokens: steps for which the end token is banned. first: how the first token is
    chosen, if not like the others. stop: told what a row has said so far, whether that is enough.
    """
    generator = torch.Generator(receiver.device).manual_seed(seed)

    def choose(step: int, rows: list[int], logits_BV: Tensor) -> Tensor:
        if step < min_new_tokens:
            logits_BV[:, receiver.prompt.eos_id] = float("-inf")
        if first is not None and step == 0:
            return first(logits_BV)
        return sampled(logits_BV, temperature, generator) if temperature > 0 else logits_BV.argmax(-1)

    out: list[list[int]] = [[] for _ in tails]
    ended: set[int] = set()
    for said in steps(receiver, prefix, tails, max_new_tokens, choose, ended):
        for row, token in said.items():
            out[row].append(token)
            if stop is not None and stop(out[row]):
                ended.add(row)
    return Generated(texts(receiver, out), out)


def steps(
    receiver: Receiver, prefix: Prefix, tails: list[list[int]], most: int, choose: Choose, ended: set[int]
) -> Generator[dict[int, int]]:
    """Decode behind ``tails`` one step at a time, at most ``most`` of them; yields the token of each row that goes on.

    choose: gets the number of the step, the rows that are still in the batch (in order; some may have ended) and their
    logits [B, V], and gives token ids [B]. ended: rows that are over. A row's end token puts it in, and whoever reads
    the tokens may put others in between two steps; the batch ends with its last row.
    """
    eos = receiver.prompt.eos_id
    mask_BT, ids_BT = pad(tails, receiver.prompt.pad_id, receiver.device, left=True)
    rows = list(range(len(tails)))
    recorded = receiver.recorded
    room = recorded.begin(receiver, prefix, *ids_BT.shape, most) if recorded else None
    reader = room or Ordinary(receiver, prefix, *ids_BT.shape, most)
    try:
        for step in range(most):
            chosen_B = choose(step, rows, reader.read(ids_BT, mask_BT))
            tokens = {row: token for row, token in zip(rows, chosen_B.tolist(), strict=True) if row not in ended}
            ended.update(row for row, token in tokens.items() if token == eos)
            yield {row: token for row, token in tokens.items() if token != eos}
            keep = [place for place, row in enumerate(rows) if row not in ended]
            if not keep:
                return
            if len(keep) <= LEAVE * len(rows):
                keep_N = torch.tensor(keep, device=receiver.device)
                rows, chosen_B = [rows[place] for place in keep], chosen_B[keep_N]
                reader.take(keep_N)
            ids_BT = chosen_B[:, None]
            mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    finally:
        if recorded and room:
            recorded.give_back(room)


class Ordinary:
    """A batch's prefix and the room that it grows in."""

    def __init__(self, receiver: Receiver, prefix: Prefix, batch: int, width: int, most: int) -> None:
        self.receiver, self.prefix = receiver, prefix
        self.room = make_room(prefix, batch, width + most, receiver.dtype)

    def read(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Read tokens, padded in front, of the rows that are left; logits [B, V] behind the last one."""
        receiver, prefix = self.receiver, self.prefix
        positions_BT = prefix.next_B[:, None] + (mask_BT.long().cumsum(-1) - 1).clamp_min(0)
        if not receiver.geometry.rope:
            # rows that have ended and not left yet may run beyond the end of learned positions
            positions_BT = positions_BT.clamp_max(receiver.geometry.window - 1)
        with sdpa_kernel(DECODING):
            h_BTE = receiver.states(
                ids_BT, positions_BT=positions_BT, own_BTT=own_causal(mask_BT), prefix=held(prefix, self.room),
                room=self.room,
            )  # fmt: skip
        end = prefix.mask_BM.shape[1] + ids_BT.shape[1]
        kv = [(k[:, :, :end], v[:, :, :end]) for k, v in self.room]
        self.prefix = prefix.grown(kv, mask_BT, positions_BT[:, -1] + 1, positions_BT)
        return receiver.logits(h_BTE[:, -1])

    def take(self, keep_N: Tensor) -> None:
        """Go on with these of the rows that are left."""
        self.room = [(k[keep_N.to(k.device)], v[keep_N.to(v.device)]) for k, v in self.room]
        self.prefix = replace(self.prefix, kv=[]).take(keep_N)


def sampled(logits_BV: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """A token for each row [B], drawn at a temperature above 0."""
    return torch.multinomial((logits_BV / temperature).softmax(-1), 1, generator=generator)[:, 0]


def texts(receiver: Receiver, ids: list[list[int]]) -> list[str]:
    """Answers as text, without special tokens and the space around them."""
    return [text.strip() for text in receiver.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def make_room(prefix: Prefix, batch: int, more: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """The prefix's K/V with space for ``more`` positions behind them."""

    def wide(x_BHMK: Tensor) -> Tensor:
        _, H, M, K = x_BHMK.shape
        # zeros, not whatever was there: masked positions still meet the arithmetic
        room_BHMK = torch.zeros(batch, H, M + more, K, dtype=dtype, device=x_BHMK.device)
        room_BHMK[:, :, :M] = x_BHMK
        return room_BHMK

    return [(wide(k), wide(v)) for k, v in prefix.kv]


def held(prefix: Prefix, room: list[tuple[Tensor, Tensor]]) -> Prefix:
    """The prefix as the beginning of its room."""
    M = prefix.mask_BM.shape[1]
    kv = [(k[:, :, :M], v[:, :, :M]) for k, v in room]
    return replace(prefix, kv=kv)
