"""Batches drawn on the training device from (seed, step) alone: resuming needs no memory of what was drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentwire.objectives import Passages
from latentwire.training.store import Store
from latentwire.training.teacher import Kept


@dataclass(frozen=True)
class Batch:
    """Passages of one step: the encoder's tensors, and each receiver's view of them."""

    source: dict[str, Tensor]
    read: dict[str, Passages]


class Batches:
    """A store on the device. Each epoch is a new permutation; a passage's questions are drawn with replacement.

    kept: by receiver, what its teacher makes of all questions, where that was computed beforehand.
    """

    def __init__(self, store: Store, newline: dict[str, int], size: int, asks: int, device: torch.device) -> None:
        self.count, self.newline, self.asks, self.device = store.size, newline, asks, device
        self.size = min(size, store.size)
        self.source = {key: torch.from_numpy(value).to(device) for key, value in store.source.items()}
        self.read = {
            name: {key: torch.from_numpy(value).to(device) for key, value in arrays.items()}
            for name, arrays in store.read.items()
        }
        self.first = None if store.first is None else torch.from_numpy(store.first).to(device)
        self.many = None if store.many is None else torch.from_numpy(store.many).to(device)
        self.kept: dict[str, Kept] = {}
        self._epoch: tuple[int, Tensor] | None = None

    def draw(self, number: int, seed: int, generator: torch.Generator) -> Batch:
        """The ``number``-th batch of this store in a run of this seed."""
        per_epoch = self.count // self.size
        epoch, place = divmod(number, per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            order = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
            self._epoch = (epoch, order.to(self.device))
        index_B = self._epoch[1][place * self.size : (place + 1) * self.size]
        luck_BR = torch.rand(self.size, self.asks, generator=generator, device=self.device)
        return self.at(index_B, luck_BR)

    def at(self, index_B: Tensor, luck_BR: Tensor) -> Batch:
        """The passages at ``index_B``; ``luck_BR`` in [0, 1) picks each passage's questions."""
        source = {key: value[index_B] for key, value in self.source.items()}
        question_BR = None
        if self.first is not None and self.many is not None:
            question_BR = self.first[index_B, None] + (luck_BR * self.many[index_B, None]).long()
        return Batch(source, {name: self._passages(name, index_B, question_BR) for name in self.read})

    def _passages(self, name: str, index_B: Tensor, question_BR: Tensor | None) -> Passages:
        a = self.read[name]
        behind, asked, kept = "next" in a, question_BR is not None, self.kept.get(name)
        return Passages(
            ids_BT=a["ids"][index_B].long(),
            count_B=a["count"][index_B].long(),
            newline=self.newline[name],
            next_BT=a["next"][index_B].long() if behind else None,
            next_count_B=a["next_count"][index_B].long() if behind else None,
            questions_BRT=a["questions"][question_BR].long() if asked else None,
            asks_BR=a["asks"][question_BR].long() if asked else None,
            length_BR=a["length"][question_BR].long() if asked else None,
            teacher=None if kept is None or question_BR is None else kept.of(question_BR, a["questions"].shape[1]),
        )
