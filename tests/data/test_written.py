"""Questions that a small model has written, as training reads them."""

from __future__ import annotations

import json

import pytest

from latentwire.data.written import written
from latentwire.errors import UserError


def test_the_first_passages_with_all_their_questions(tmp_path):
    folder = tmp_path / "written"
    folder.mkdir()
    for part, contexts in enumerate((("a", "b"), ("c",))):
        rows = [{"context": c, "question": f"{q}?", "answers": [c]} for c in contexts for q in range(2)]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / ".1.jsonl.77").write_text("unfinished")
    assert [row.context for row in written(tmp_path, 2)] == ["a", "a", "b", "b"]
    assert len(written(tmp_path, 9)) == 6


def test_none_are_there(tmp_path):
    with pytest.raises(UserError, match=r"latentwire\.sandbox\.asking. writes them"):
        written(tmp_path, 2)
