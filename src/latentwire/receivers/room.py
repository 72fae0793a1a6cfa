"""A room of fixed size for the keys and values of a batch, and the passes that are recorded in it.

New keys and values are written to where an index on the GPU says, and a mask says what of the room is there: a pass
reads its tokens and moves everything along by itself, so each replay is the next step. There is a pass for tails
(padded in front to a multiple of :data:`STEP`) and one for single tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from latentwire.receivers.attention import own_causal
from latentwire.receivers.capture import WARM, Record, on_stream
from latentwire.receivers.kernels import DECODING
from latentwire.types import Prefix

if TYPE_CHECKING:
    from latentwire.receivers.receiver import Receiver

STEP = 16
"""Tails are padded to a multiple of so many tokens."""


@dataclass
class Pass:
    """A recorded forward pass over ``ids_BT``, of which ``mask_BT`` are there. logits_BV: what a replay leaves."""

    ids_BT: Tensor
    mask_BT: Tensor
    graph: Any = None
    logits_BV: Any = None


class Room:
    """Keys and values of a batch, what is there of them, and the passes that read and write them.

    kind: rows, places and weights; a room serves batches of its kind.
    """

    def __init__(self, kind: tuple[int, int, int], cost: int, shapes: list[torch.Size], receiver: Receiver) -> None:
        (rows, places, _), device = kind, receiver.device
        self.kind, self.cost, self.passes = kind, cost, dict[int, Pass]()
        # in one piece, so that one call clears it
        sizes = [rows * shape[1] * places * shape[3] for shape in shapes]
        self.all = torch.zeros(sum(sizes), dtype=receiver.dtype, device=device)
        parts = [
            part.view(rows, shape[1], places, shape[3])
            for part, shape in zip(self.all.split(sizes), shapes, strict=True)
        ]
        self.kv = list(zip(parts[::2], parts[1::2], strict=True))
        self.there_BR = torch.zeros(rows, places, dtype=torch.bool, device=device)
        self.at_BR = torch.zeros(rows, places, device=device)
        self.next_B = torch.zeros(rows, dtype=torch.long, device=device)
        self.start = torch.zeros(1, dtype=torch.long, device=device)
        self.living_N = torch.zeros(0, dtype=torch.long, device=device)

    def prepare(self, receiver: Receiver, width: int, record: Record, stream: Any) -> None:
        """Record the pass for ``width`` tokens if there is none. What is in the room is lost."""
        if width in self.passes:
            return
        ids_BT = torch.zeros(self.kind[0], width, dtype=torch.long, device=receiver.device)
        made = Pass(ids_BT, torch.zeros_like(ids_BT, dtype=torch.bool))
        with on_stream(stream):
            for _ in range(WARM):
                self.clear()
                self.go(receiver, made)
            self.clear()
            pool = next((other.graph.pool() for other in self.passes.values()), None)
            made.graph, made.logits_BV = record(lambda: self.go(receiver, made), pool)
        self.passes[width] = made

    def go(self, receiver: Receiver, made: Pass) -> Tensor:
        """The pass itself: logits [B, V] behind the last token. Nothing in it may wait for the GPU."""
        width = made.ids_BT.shape[1]
        positions_BT = self.next_B[:, None] + (made.mask_BT.long().cumsum(-1) - 1).clamp_min(0)
        if not receiver.geometry.rope:
            # rows that have ended may run beyond the end of learned positions
            positions_BT = positions_BT.clamp_max(receiver.geometry.window - 1)
        place_T = self.start + torch.arange(width, device=self.start.device)
        prefix = Prefix(self.kv, self.there_BR, self.next_B, positions_BM=self.at_BR)
        with sdpa_kernel(DECODING):
            h_BTE = receiver.states(
                made.ids_BT, positions_BT=positions_BT, own_BTT=own_causal(made.mask_BT), prefix=prefix,
                room=self.kv, place_T=place_T,
            )  # fmt: skip
        self.there_BR.index_copy_(1, place_T, made.mask_BT)
        self.at_BR.index_copy_(1, place_T, positions_BT.to(self.at_BR.dtype))
        self.next_B.copy_(positions_BT[:, -1] + 1)
        self.start.add_(width)
        return receiver.logits(h_BTE[:, -1])

    def clear(self) -> None:
        """Empty the room. Zeros, not what was there: masked places still meet the arithmetic."""
        for held in (self.all, self.there_BR, self.at_BR, self.next_B, self.start):
            held.zero_()

    def enter(self, prefix: Prefix, batch: int) -> None:
        """Put the prefix of ``batch`` rows into the room."""
        self.clear()
        M = prefix.mask_BM.shape[1]
        room = [held[:batch, :, :M] for layer in self.kv for held in layer]
        torch._foreach_copy_(room, [x_BHMK for layer in prefix.kv for x_BHMK in layer])
        self.there_BR[:batch, :M] = prefix.mask_BM
        if prefix.positions_BM is not None:
            self.at_BR[:batch, :M] = prefix.positions_BM
        self.next_B[:batch] = prefix.next_B
        self.start.fill_(M)
        self.living_N = torch.arange(batch, device=self.start.device)

    def read(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Read tokens, padded in front, of the rows that are left; logits [B, V] behind the last one."""
        width = ids_BT.shape[1]
        made = self.passes[padded(width)]
        made.mask_BT.zero_()
        made.ids_BT[:, -width:].index_copy_(0, self.living_N, ids_BT)
        made.mask_BT[:, -width:].index_copy_(0, self.living_N, mask_BT)
        made.graph.replay()
        return made.logits_BV[self.living_N]

    def take(self, keep: list[int]) -> None:
        """Go on with these of the rows that are left. The others stay where they are, as rows nobody asks for."""
        self.living_N = self.living_N[keep]


def padded(width: int) -> int:
    """Tokens of the pass that reads ``width`` of them.

    >>> [padded(width) for width in (1, 2, 17)]
    [1, 16, 32]
    """
    return 1 if width == 1 else width + -width % STEP
