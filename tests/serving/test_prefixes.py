"""Contexts that were read are kept within their bytes, and a kept one answers as a fresh one does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from latentwire.serving import answering, contexts
from latentwire.serving.metrics import Metrics
from latentwire.serving.prefixes import Prefixes
from latentwire.types import Prefix


def prefix(slots: int, value: float = 0.0) -> Prefix:
    """Of one layer: 8 bytes a slot."""
    k_BHMK = torch.full((1, 1, slots, 1), value)
    return Prefix([(k_BHMK, k_BHMK)], torch.ones(1, slots, dtype=torch.bool), torch.tensor([slots]))


def test_the_one_asked_for_longest_ago_goes_first():
    kept = Prefixes(8 * 10)
    kept.put("a", prefix(5))
    kept.put("b", prefix(5))
    assert kept.get("a") is not None
    kept.put("c", prefix(4))
    assert [kept.get(key) is not None for key in "abc"] == [True, False, True]
    assert kept.bytes == 8 * 9 and (kept.asked, kept.found) == (4, 3)
    kept.put("c", prefix(4, 1.0))
    assert kept.bytes == 8 * 9, "what is there already is not counted twice"


@pytest.mark.parametrize("most", [0, 8 * 4])
def test_what_does_not_fit_is_not_kept_and_drives_nothing_out(most):
    kept = Prefixes(most)
    kept.put("small", prefix(4))
    kept.put("large", prefix(5))
    assert kept.get("large") is None and kept.bytes == len(kept.held) * 8 * 4 <= most


def test_rows_come_without_the_padding_behind_them_and_stack_again():
    mask_BM = torch.tensor([[True, True, False], [True, False, True], [True, False, False]])
    k_BHMK = torch.arange(9.0).view(3, 1, 3, 1)
    whole = Prefix([(k_BHMK, -k_BHMK)], mask_BM, torch.tensor([2, 3, 1]), positions_BM=torch.arange(3).expand(3, 3))
    rows = whole.rows()
    assert [row.mask_BM.shape[1] for row in rows] == [2, 3, 1], "a gap inside stays"
    again = Prefix.stacked(rows)
    torch.testing.assert_close(again.mask_BM, mask_BM)
    torch.testing.assert_close(again.kv[0][1][mask_BM[:, None]], -k_BHMK[mask_BM[:, None]])
    assert again.next_B.tolist() == [2, 3, 1]


def test_a_context_asked_about_again_is_not_read_again_and_answers_alike(tiny_wire, packets, monkeypatch):
    receiver = tiny_wire.get_receiver("llama")
    reads: list[int] = []
    fresh = contexts._read
    monkeypatch.setattr(contexts, "_read", lambda jobs, receiver: reads.append(len(jobs)) or fresh(jobs, receiver))
    questions = ["Who came?", "Where is it, and why did they go there?", "When?"]

    def ask(kept: Prefixes, which: list[int]) -> list[str]:
        said: dict[int, Any] = {}
        jobs = [
            answering.AnswerJob(
                tell=lambda event, number=number: said.update({number: event}), wire=tiny_wire, receiver="llama",
                packet=packets[which[number]], tail=receiver.prompt.question_ids([question])[0], most=5, kept=kept,
            )
            for number, question in enumerate(questions)
        ]  # fmt: skip
        answering.AnswerJob.run(jobs, Metrics())
        return [said[number].text for number in range(len(questions))]

    kept = Prefixes(1 << 20)
    first = ask(kept, [0, 1, 0])
    assert sum(reads) == 2, "one packet that two ask about is read once"
    assert ask(kept, [0, 1, 0]) == first and sum(reads) == 2
    assert ask(Prefixes(), [0, 1, 0]) == first and sum(reads) == 4
    alone = [tiny_wire.receiver("llama").generate(packets[place], question, 5)
             for place, question in zip([0, 1, 0], questions, strict=True)]  # fmt: skip
    assert first == alone
