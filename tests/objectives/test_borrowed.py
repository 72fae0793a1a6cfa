"""Questions borrowed of another passage: only judged, and only at the first token of an answer."""

from __future__ import annotations

import pytest
import torch

from latentwire.errors import UserError
from latentwire.objectives.answer import AnswerConfig
from latentwire.objectives.base import Passages
from latentwire.objectives.borrowed import BorrowedConfig
from latentwire.objectives.combination import check
from latentwire.objectives.kl import KLConfig
from latentwire.objectives.label_smoothing import LabelSmoothingConfig


def test_each_passage_borrows_of_the_one_before_it_and_first_answer_tokens_are_judged():
    questions = torch.arange(3 * 4 * 8).reshape(3, 4, 8)
    asks = torch.tensor([[3, 4, 5, 6]] * 3) - torch.tensor([[0], [1], [2]])
    passages = Passages(torch.zeros(3, 5, dtype=torch.long), torch.full((3,), 5), 0, questions_BRT=questions,
                        asks_BR=asks, length_BR=asks + 2)  # fmt: skip
    rows = BorrowedConfig(rows=2).build().cut(passages, 8, torch.Generator())
    assert rows is not None
    for passage in range(3):
        assert torch.equal(rows.ids_BRT[passage], questions[passage - 1, :2])
        assert [row.nonzero()[0].item() for row in rows.target_BRT[passage]] == asks[passage - 1, :2].tolist()
    assert rows.target_BRT.sum() == 6, "one token of each row"


def test_they_need_a_judge_with_a_teacher_and_rows_with_right_answers():
    check({"answer": AnswerConfig(), "other": BorrowedConfig(), "kl": KLConfig()})
    with pytest.raises(UserError, match="'other' has rows without right answers"):
        check({"answer": AnswerConfig(), "other": BorrowedConfig(), "soft": LabelSmoothingConfig()})
    with pytest.raises(UserError, match="no objective puts rows behind a passage"):
        check({"other": BorrowedConfig(), "kl": KLConfig()})
    with pytest.raises(UserError, match=r"borrowed\.rows"):
        BorrowedConfig(rows=0).build()
