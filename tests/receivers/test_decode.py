"""Rows of a batch are decoded as each would be alone, however they are grouped and whenever they leave."""

from __future__ import annotations

import pytest
import torch

from latentwire.receivers import Receiver, decode
from receivers.families import FAMILIES, VOCABULARY, model_of
from receivers.test_families import CLOSE, some_ids, tokenizer  # noqa: F401

TAILS = [2, 2, 3, 9, 10]


@pytest.fixture(params=FAMILIES, scope="module")
def receiver(request, tokenizer):  # noqa: F811
    return Receiver(request.param, model_of(request.param), tokenizer)


@torch.no_grad()
def said(receiver: Receiver, rows: list[int], most: int, ending: dict[int, int]) -> dict[int, list[torch.Tensor]]:
    """Logits that each of the rows saw. ending: after how many tokens a row is over; prefixes have gaps and ends."""
    mask_BT = torch.tensor([[True] * 4 + [False] * 2, [True] * 6, [True, False] * 3, [True] * 6, [True] * 5 + [False]])
    prefix = receiver.read(some_ids(5, 6), mask_BT).take(torch.tensor(rows))
    tails = [some_ids(1, TAILS[row], seed=row)[0].tolist() for row in rows]
    seen: dict[int, list[torch.Tensor]] = {row: [] for row in rows}
    over: set[int] = set()

    def choose(step: int, places: list[int], logits_BV: torch.Tensor) -> torch.Tensor:
        logits_BV[:, receiver.prompt.eos_id] = float("-inf")
        for place, row in zip(places, logits_BV, strict=True):
            if place not in over:
                seen[rows[place]].append(row.clone())
        return logits_BV.argmax(-1)

    for number, _ in enumerate(decode.steps(receiver, prefix, tails, most, choose, over)):
        over |= {place for place, row in enumerate(rows) if ending.get(row, most) <= number + 1}
    return seen


def test_rows_of_like_lengths_are_read_together_and_see_what_they_see_alone(receiver, monkeypatch):
    ending = {0: 1, 3: 2}
    widths: list[int] = []
    states = receiver.states
    monkeypatch.setattr(receiver, "states", lambda ids, **more: widths.append(ids.shape[1]) or states(ids, **more))
    together = said(receiver, [0, 1, 2, 3, 4], 4, ending)
    assert [width for width in widths[1:] if width > 1] == [2, 3, 10], "the prefix, then three runs"
    monkeypatch.setattr(decode, "PADDED", 1e9)
    one_run = said(receiver, [0, 1, 2, 3, 4], 4, ending)
    for row in range(5):
        (alone,) = said(receiver, [row], 4, ending).values()
        assert len(together[row]) == len(one_run[row]) == len(alone) == ending.get(row, 4)
        for a, b, c in zip(together[row], one_run[row], alone, strict=True):
            torch.testing.assert_close(a[: VOCABULARY - 20], c[: VOCABULARY - 20], **CLOSE)
            torch.testing.assert_close(b[: VOCABULARY - 20], c[: VOCABULARY - 20], **CLOSE)


def test_rows_that_come_in_no_order_are_read_at_once(receiver):
    mixed, sorted_ = said(receiver, [4, 0, 3], 3, {}), said(receiver, [0, 3, 4], 3, {})
    for row in (0, 3, 4):
        for a, b in zip(mixed[row], sorted_[row], strict=True):
            torch.testing.assert_close(a[: VOCABULARY - 20], b[: VOCABULARY - 20], **CLOSE)
