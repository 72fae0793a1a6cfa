"""Many questions behind one context, many contexts in one row: the shape in which questions are trained.

A row holds several *groups*; a group is a context and blocks behind it, each block one question with its answer. A
token attends to its own group's context and to its own block, never to another question, and every block's positions
start where the context ends. So a reader sees each question exactly as it will at test time, while a context of 200
tokens is computed once for its eight questions: about five times more supervision per second than one question a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

REST, ANSWER = 1, 2
"""Roles of a token as a target: words of context and question (learnt a little), words of an answer and its end."""
BLOCKS = 16
"""``segment = group * BLOCKS + block``, block 0 being the context: at most 15 groups of 15 blocks in a row."""
PADDING = 255
_OPEN = 24  # rows kept open while packing: enough to fill 512 tokens to more than 95 %


@dataclass
class Rows:
    """Packed rows, arrays ``[N, T]``: ids uint16, segment uint8, position uint16, role uint8 (0: no target)."""

    ids: np.ndarray
    segment: np.ndarray
    position: np.ndarray
    role: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def join(parts: list[Rows]) -> Rows:
        """The rows of several parts, in order."""
        return Rows(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("ids", "segment", "position", "role")))


@dataclass
class Group:
    """A context with its head, and its ``(question + anchor, answer + end)`` blocks, as token ids."""

    context: list[int]
    blocks: list[tuple[list[int], list[int]]]


def split(group: Group, length: int) -> list[Group]:
    """Groups of at most ``length`` tokens with the same context; what can never fit is left out."""
    done: list[Group] = []
    held, size = [], len(group.context)
    for question, answer in group.blocks:
        cost = len(question) + len(answer)
        if len(group.context) + cost > length:
            continue
        if size + cost > length or len(held) == BLOCKS - 1:
            done.append(Group(group.context, held))
            held, size = [], len(group.context)
        held.append((question, answer))
        size += cost
    return [*done, Group(group.context, held)] if held else done


def pack(groups: Iterable[Group], length: int) -> Rows:
    """Rows of ``length`` tokens, filled best-fit among a few open ones; every block stands in one of them."""
    closed: list[list[Group]] = []
    still_open: list[tuple[int, list[Group]]] = []
    for whole in groups:
        for group in split(whole, length):
            size = len(group.context) + sum(len(q) + len(a) for q, a in group.blocks)
            fitting = [i for i, (room, row) in enumerate(still_open) if room >= size and len(row) < BLOCKS - 1]
            if fitting:
                best = min(fitting, key=lambda i: still_open[i][0])
                room, row = still_open.pop(best)
            else:
                room, row = length, []
            row.append(group)
            still_open.append((room - size, row))
            if len(still_open) > _OPEN:
                fullest = min(range(len(still_open)), key=lambda i: still_open[i][0])
                closed.append(still_open.pop(fullest)[1])
    closed += [row for _, row in still_open]
    rows = Rows(
        np.zeros((len(closed), length), np.uint16),
        np.full((len(closed), length), PADDING, np.uint8),
        np.zeros((len(closed), length), np.uint16),
        np.zeros((len(closed), length), np.uint8),
    )
    for index, row in enumerate(closed):
        at = 0
        for number, group in enumerate(row):
            at = _write(rows, index, at, group.context, number * BLOCKS, 0, 0)
            for block, (question, answer) in enumerate(group.blocks, start=1):
                segment, start = number * BLOCKS + block, len(group.context)
                at = _write(rows, index, at, question, segment, start, 0)
                at = _write(rows, index, at, answer, segment, start, len(question))
                rows.role[index, at - len(answer) : at] = ANSWER
    return rows


def _write(rows: Rows, row: int, at: int, ids: list[int], segment: int, start: int, offset: int) -> int:
    end = at + len(ids)
    rows.ids[row, at:end] = ids
    rows.segment[row, at:end] = segment
    rows.position[row, at:end] = np.arange(start + offset, start + offset + len(ids))
    # the first token of a segment has no predecessor in the row that saw the same text
    rows.role[row, at + (0 if offset else 1) : end] = REST
    return end


def allowed(segment_BT):
    """Which token may attend to which: bool ``[B, 1, T, T]`` from uint8 ``segment_BT``."""
    group_BT = segment_BT // BLOCKS
    context_BT = (segment_BT % BLOCKS) == 0
    same_group = group_BT[:, :, None] == group_BT[:, None, :]
    same_block = segment_BT[:, :, None] == segment_BT[:, None, :]
    return ((same_group & context_BT[:, None, :]) | same_block).tril()[:, None]
