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
from latentwire.types import Generated, Prefix, rows_of

Choose = Callable[[int, list[int], Tensor], Tensor]

LEAVE = 0.75
"""Ended rows leave once no more than this share of a batch goes on: leaving copies what is held."""
PADDED = 1.2
"""How much larger padding may make what is read together."""


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
                rows, chosen_B = [rows[place] for place in keep], chosen_B[keep]
                reader.take(keep)
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
            h_BE = last_states(receiver, prefix, self.room, ids_BT, mask_BT, positions_BT)
        end = prefix.mask_BM.shape[1] + ids_BT.shape[1]
        kv = [(k[:, :, :end], v[:, :, :end]) for k, v in self.room]
        self.prefix = prefix.grown(kv, mask_BT, positions_BT[:, -1] + 1, positions_BT)
        return receiver.logits(h_BE)

    def take(self, keep: list[int]) -> None:
        """Go on with these of the rows that are left, in ascending order."""
        self.room = [(packed(k, keep), packed(v, keep)) for k, v in self.room]
        self.prefix = replace(self.prefix, kv=[]).take(torch.tensor(keep, device=self.receiver.device))


def last_states(
    receiver: Receiver,
    prefix: Prefix,
    room: list[tuple[Tensor, Tensor]],
    ids_BT: Tensor,
    mask_BT: Tensor,
    at_BT: Tensor,
) -> Tensor:
    """States [B, E] of each row's last token, read behind ``prefix`` into ``room``; ids padded on the left.

    On a CPU, where arithmetic is what takes time, rows of like lengths are read together, if rows come ordered by it.
    """
    B, T = ids_BT.shape
    runs, own = [(0, B)], []
    if ids_BT.device.type == "cpu" and not prefix.blocks:
        own = mask_BT.sum(-1).tolist()
        runs = alike(own) if own == sorted(own) else runs
    out = []
    for start, end in runs:
        rows, skip = slice(start, end), T - max(own[end - 1], 1) if len(runs) > 1 else 0
        part = [(k[rows], v[rows]) for k, v in room] if len(runs) > 1 else room
        before = prefix
        if len(runs) > 1:
            # what is left out on the left is a gap in front of the tokens
            gap_BT, mask_BM = mask_BT[rows, :skip], prefix.mask_BM.expand(B, -1)[rows]
            placed = prefix.positions_BM
            before = replace(
                prefix, kv=[], mask_BM=torch.cat([mask_BM, gap_BT], 1), next_B=prefix.next_B.expand(B)[rows],
                positions_BM=None if placed is None else torch.cat([placed.expand(B, -1)[rows], at_BT[rows, :skip]], 1),
            )  # fmt: skip
        h_BTE = receiver.states(
            ids_BT[rows, skip:], positions_BT=at_BT[rows, skip:], own_BTT=own_causal(mask_BT[rows, skip:]),
            prefix=held(before, part), room=part,
        )  # fmt: skip
        out.append(h_BTE[:, -1])
    return torch.cat(out) if len(out) > 1 else out[0]


def alike(sizes: list[int]) -> list[tuple[int, int]]:
    """Runs ``(start, end)`` of ascending sizes that padding to the run's longest makes at most :data:`PADDED` larger.

    >>> alike([30, 31, 33, 90, 100])
    [(0, 3), (3, 5)]
    """
    runs, start = [], 0
    for end in range(1, len(sizes)):
        if (end + 1 - start) * sizes[end] > PADDED * sum(sizes[start : end + 1]):
            runs.append((start, end))
            start = end
    return [*runs, (start, len(sizes))] if sizes else []


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
        room_BHMK = torch.empty(batch, H, M + more, K, dtype=dtype, device=x_BHMK.device)
        room_BHMK[:, :, :M] = x_BHMK
        # zeros, not whatever was there: masked positions still meet the arithmetic
        room_BHMK[:, :, M:] = 0
        return room_BHMK

    return [(wide(k), wide(v)) for k, v in prefix.kv]


def packed(x_BHMK: Tensor, keep: list[int]) -> Tensor:
    """Rows ``keep`` (ascending), on a CPU moved to the front of the same memory: fresh memory is slow to touch there,
    and a GPU would rather have one kernel than one for each row."""
    if x_BHMK.device.type != "cpu":
        return rows_of(x_BHMK, torch.tensor(keep))
    for to, row in enumerate(keep):
        if to != row:
            x_BHMK[to] = x_BHMK[row]
    return x_BHMK[: len(keep)]


def held(prefix: Prefix, room: list[tuple[Tensor, Tensor]]) -> Prefix:
    """The prefix as the beginning of its room."""
    M = prefix.mask_BM.shape[1]
    kv = [(k[:, :, :M], v[:, :, :M]) for k, v in room]
    return replace(prefix, kv=kv)
