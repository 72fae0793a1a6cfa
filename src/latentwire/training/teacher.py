"""The teacher's view of question rows, computed once and kept on disk.

Question rows are the same in every epoch (random recalls are not), and so is what the frozen receiver makes of them
behind the text. Kept are, for each target token, the K likeliest tokens of its vocabulary with their log-probability,
and the log-probability of all others together as one more outcome. The divergence over these K + 1 outcomes is never
above that of the live teacher, and falls short of it by exactly

    rest * KL(teacher among the others || student among the others)

where ``rest`` is the probability that the teacher gives to the others: what is lost is which of the unlikely tokens the
teacher finds less unlikely. For the shipped wire that is about a twentieth of the divergence with K = 32, and a
thirtieth to a fortieth with K = 128 (measured on questions that come along, of 34 short passages, at 4 and 8 tokens a
latent); with all of the vocabulary but one token it is nothing.

One file holds the questions of ``PART`` passages, in a folder named by what they were made from; a run that was stopped
while they were made goes on with the next file, and several processes make every so many-th file each.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentwire.data.progress import progress
from latentwire.errors import UserError
from latentwire.objectives import KeptTeacher
from latentwire.receivers import Receiver
from latentwire.receivers.tokenizer import tokenizer_hash
from latentwire.training.store import Store

PART = 512
"""Passages in a file."""
TOKENS = 2048
"""Target tokens whose logits are held at a time."""
Read = Callable[[Receiver, Tensor, Tensor, Tensor], Tensor]
"""``read(receiver, ids_BT, count_B, ids_BRT)``: the teacher's states [B, R, T, E] of rows behind a passage's text."""


@dataclass(frozen=True)
class Kept:
    """Of every question of a store: the first target's place in its row, int64 [Q]; ids int32 [Q, W, K] and
    log-probabilities float32 [Q, W, K + 1] of up to W targets, the last being that of all other tokens."""

    first_Q: Tensor
    ids: Tensor
    logs: Tensor

    def of(self, question_BR: Tensor, width: int) -> KeptTeacher:
        """For each token of rows of ``width`` but the first, as targets are predicted from the token before them."""
        place_T = torch.arange(1, width, device=question_BR.device) - self.first_Q[question_BR][..., None]
        inside = (place_T >= 0) & (place_T < self.ids.shape[1])
        flat = question_BR[..., None] * self.ids.shape[1] + place_T.clamp(0, self.ids.shape[1] - 1)
        ids, logs = (x.flatten(0, 1)[flat] for x in (self.ids, self.logs))
        # where there is no target: no outcome has any probability, and arithmetic stays finite
        return KeptTeacher(ids, logs.masked_fill(~inside[..., None], NEVER))

    def to(self, device: torch.device) -> Kept:
        return Kept(self.first_Q.to(device), self.ids.to(device), self.logs.to(device))


NEVER = -1e4


def keep(
    receiver: Receiver,
    store: Store,
    read: Read,
    directory: str | Path,
    top: int,
    question: bool,
    batch: int = 32,
    asks: int = 4,
    autocast: Callable[[], AbstractContextManager] | None = None,
    share: tuple[int, int] = (0, 1),
    wait: Callable[[], object] = lambda: None,
) -> Kept:
    """The kept teacher of all questions in ``store``, from ``directory`` as far as it is there.

    top: K. question: whether the tokens of questions are targets too. batch, asks: passages, and rows behind each, that
    are read at a time. share: number of this process and of all, each of which makes its part of the files; wait: what
    then waits for the others. Files that are missing behind it, on another machine's disk, are made here as well.
    UserError: K is not below the size of the vocabulary.
    """
    if not 1 <= top < receiver.geometry.vocab:
        raise UserError(f"kl.top is a number from 1 to below {receiver.geometry.vocab} (the vocabulary), not {top}")
    assert store.first is not None and store.many is not None
    arrays = store.read[receiver.name]
    first = np.ones_like(arrays["asks"]) if question else arrays["asks"]
    width = int((arrays["length"] - first).max())
    folder = Path(directory) / f"teacher-{receiver.name}-{digest(receiver, store, top, question)}"
    folder.mkdir(parents=True, exist_ok=True)
    maker, parts = Maker(receiver, arrays, first, width, top, read, autocast), []

    def made(start: int) -> Path:
        path, end = folder / f"{start:07d}.npz", min(start + PART, store.size)
        if not path.is_file():
            assert store.first is not None and store.many is not None
            _write(path, *maker.passages(start, end, store.first, store.many, batch, asks))
        return path

    starts, (rank, world) = range(0, store.size, PART), share
    mine = starts[rank::world]
    with progress(f"teacher of {receiver.name}", len(mine)) as show:
        for number, start in enumerate(mine, 1):
            made(start)
            show(number, f"{number}/{len(mine)} files of {PART} passages")
    wait()
    for start in starts:
        with np.load(made(start), allow_pickle=False) as found:
            parts.append((found["ids"], found["logs"]))
    ids, logs = (np.concatenate(pick) for pick in zip(*parts, strict=True))
    return Kept(torch.from_numpy(first).long(), torch.from_numpy(ids), torch.from_numpy(logs))


@dataclass(frozen=True)
class Maker:
    """What files are made with."""

    receiver: Receiver
    arrays: dict[str, np.ndarray]
    first: np.ndarray
    width: int
    top: int
    read: Read
    autocast: Callable[[], AbstractContextManager] | None

    @torch.no_grad()
    def passages(
        self, start: int, end: int, first: np.ndarray, many: np.ndarray, batch: int, asks: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids and logs of all questions of the passages from ``start`` to ``end``, in the store's order."""
        begin, stop = int(first[start]), int(first[end - 1] + many[end - 1])
        size = stop - begin, self.width
        ids, logs = np.zeros((*size, self.top), np.int32), np.full((*size, self.top + 1), NEVER, np.float32)
        for passages, questions, there in rounds(start, end, first, many, batch, asks):
            question_N, place_N, ids_NK, logs_NK = self.targets(passages, questions, there)
            ids[question_N - begin, place_N], logs[question_N - begin, place_N] = ids_NK, logs_NK
        return ids, logs

    def targets(
        self, passages: np.ndarray, questions_BR: np.ndarray, there_BR: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """For each target of these rows: its question, its number among the question's targets, and the outcomes."""
        device, a = self.receiver.device, self.arrays

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device).long()

        with self.autocast() if self.autocast else nullcontext():
            h = self.read(
                self.receiver, tensor(a["ids"][passages]), tensor(a["count"][passages]),
                tensor(a["questions"][questions_BR]),
            )  # fmt: skip
            place_T = np.arange(1, h.shape[2])
            first_BR, length_BR = self.first[questions_BR][..., None], a["length"][questions_BR][..., None]
            target = (place_T >= first_BR) & (place_T < length_BR) & there_BR[..., None]
            h_NE = h[:, :, :-1][torch.from_numpy(target).to(device)]
            made = [outcomes(self.receiver.logits(part), self.top) for part in h_NE.split(TOKENS)]
        b, r, t = target.nonzero()
        question_N = questions_BR[b, r]
        ids, logs = (torch.cat(pick).cpu().numpy() for pick in zip(*made, strict=True))
        return question_N, place_T[t] - self.first[question_N], ids.astype(np.int32), logs.astype(np.float32)


def rounds(
    start: int, end: int, first: np.ndarray, many: np.ndarray, batch: int, asks: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Passages [B], ``asks`` questions of each [B, R], and which of these are there [B, R], until all were given."""
    for begin in range(start, end, batch):
        passages = np.arange(begin, min(begin + batch, end))
        for done in range(0, int(many[passages].max()), asks):
            left = passages[many[passages] > done]
            number = done + np.arange(asks)
            yield left, first[left, None] + np.minimum(number, many[left, None] - 1), number < many[left, None]


def outcomes(logits_NV: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The ``top`` likeliest tokens [N, K]; their log-probabilities and behind them that of all others, [N, K + 1]."""
    logs_NV = logits_NV.float().log_softmax(-1)
    best = logs_NV.topk(top, -1)
    rest_N1 = logs_NV.scatter(-1, best.indices, float("-inf")).logsumexp(-1, keepdim=True)
    return best.indices, torch.cat([best.values, rest_N1], -1).clamp_min(NEVER)


def digest(receiver: Receiver, store: Store, top: int, question: bool) -> str:
    """Sixteen hex digits over all that the kept teacher depends on: the receiver's weights, its layout, the rows."""
    found = hashlib.sha256(f"{receiver.fingerprint()} {tokenizer_hash(receiver.tokenizer)}".encode())
    found.update(f"{receiver.prompt.layout} {top} {question} {PART}".encode())
    for name in ("ids", "count", "questions", "asks", "length"):
        found.update(np.ascontiguousarray(store.read[receiver.name][name]).tobytes())
    assert store.many is not None
    found.update(store.many.tobytes())
    return found.hexdigest()[:16]


def _write(path: Path, ids: np.ndarray, logs: np.ndarray) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez(file, ids=ids, logs=logs)
    os.replace(part, path)
