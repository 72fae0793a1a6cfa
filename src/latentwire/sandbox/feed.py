"""Batches for the readers' training: everything lies on the device, a batch is an index into it.

What stands in a batch follows from the seed and a running count alone, so a resumed run sees the rows that an unbroken
one would have seen, whatever happened in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire.errors import UserError
from latentwire.sandbox import packing

# share of rows whose positions jump once: trains positions beyond the row's length (PoSE, Zhu et al. 2023)
_FAR = 0.15


@dataclass(frozen=True)
class Batch:
    """Rows ``[B, T]``: ids, positions, targets int64; role uint8. ``allowed``: bool ``[B, 1, T, T]``, None: causal."""

    ids: Tensor
    position: Tensor
    target: Tensor
    role: Tensor
    allowed: Tensor | None


class Order:
    """Row numbers of a set of ``size`` rows, shuffled anew each epoch, addressed by a running count."""

    def __init__(self, size: int, seed: list[int]) -> None:
        self.size, self.seed = size, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def take(self, start: int, count: int) -> np.ndarray:
        """Rows ``start`` … ``start + count`` of the endless sequence."""
        taken = []
        while count:
            epoch, at = divmod(start, self.size)
            if epoch != self._epoch:
                self._epoch = epoch
                self._order = np.random.default_rng([*self.seed, epoch]).permutation(self.size)
            part = self._order[at : at + count]
            taken.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(taken)


class Feed:
    """The reader's data on ``device``: rows of text (none for what learns from questions alone), of made and of real
    questions."""

    def __init__(self, text: np.ndarray | None, positions: int, seed: int, device: torch.device) -> None:
        self.device, self.positions, self.seed = device, positions, seed
        self.orders: dict[str, Order] = {}
        if text is not None:
            self.text = _narrow(text).to(device)
            self.orders["text"] = Order(len(text), [seed, 1])
        self.seen = {"text": 0, "made": 0, "asked": 0}

    def add(self, made: packing.Rows | None, asked: packing.Rows) -> None:
        """Take up the questions (they are needed later than the text, and are made while training runs)."""
        given = {"asked": asked} if made is None else {"made": made, "asked": asked}
        # one array for both kinds: a batch that mixes them is still one index
        both, self.n_made = packing.Rows.join(list(given.values())), 0 if made is None else len(made)
        self.ids, self.place = _narrow(both.ids).to(self.device), _narrow(both.position).to(self.device)
        self.segment = torch.from_numpy(both.segment).to(self.device)
        self.role = torch.from_numpy(both.role).to(self.device)
        for name, rows in given.items():
            if not len(rows):
                raise UserError(f"there are no rows of {name} questions; give more data, or longer rows (row=…)")
            self.orders[name] = Order(len(rows), [self.seed, {"made": 2, "asked": 3}[name]])

    def _index(self, name: str, count: int) -> np.ndarray:
        rows = self.orders[name].take(self.seen[name], count)
        self.seen[name] += count
        return rows

    def _send(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        # a copy from pageable memory would wait for everything queued on the GPU, every step
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def _positions(self, position_BT: Tensor, step: int) -> Tensor:
        rng = np.random.default_rng([self.seed, 4, step])
        rows, length = position_BT.shape
        room = self.positions - length
        far = (rng.random(rows) < _FAR) * rng.integers(0, max(room, 0) + 1, rows)
        cut = rng.integers(1, length, rows)
        jump = self._send(np.stack([far, cut]))
        return position_BT + jump[0, :, None] * (position_BT >= jump[1, :, None])

    def plain(self, rows: int, step: int) -> Batch:
        """``rows`` rows of text, every token a target."""
        index = self._send(self._index("text", rows))
        ids = self.text[index].long()
        place = torch.arange(ids.shape[1], device=self.device).expand_as(ids)
        role = torch.full_like(ids, packing.REST)
        role[:, -1] = 0
        return Batch(ids, self._positions(place, step), ids.roll(-1, 1), role, None)

    def questions(self, rows: int, asked: int, step: int) -> Batch:
        """``rows`` packed rows, ``asked`` of them of real questions."""
        made = self._index("made", rows - asked) if rows > asked else np.empty(0, np.int64)
        real = self._index("asked", asked) + self.n_made if asked else np.empty(0, np.int64)
        index = self._send(np.concatenate([made, real]))
        ids = self.ids[index].long()
        role = self.role[index].roll(-1, 1)
        role[:, -1] = 0
        place = self._positions(self.place[index].long(), step)
        return Batch(ids, place, ids.roll(-1, 1), role, packing.allowed(self.segment[index]))


def dummy(rows: int, length: int, packed: bool, device: torch.device) -> Batch:
    """A batch of nothing, causal or packed: the shapes to compile for."""
    ids = torch.zeros(rows, length, dtype=torch.long, device=device)
    segment = torch.zeros(rows, length, dtype=torch.uint8, device=device)
    role = torch.full_like(segment, packing.ANSWER if packed else packing.REST)
    return Batch(ids, ids, ids, role, packing.allowed(segment) if packed else None)


def _narrow(array: np.ndarray) -> Tensor:
    """uint16 as the smallest type that torch indexes with on every device."""
    return torch.from_numpy(array.astype(np.int16 if int(array.max(initial=0)) < 2**15 else np.int32))
