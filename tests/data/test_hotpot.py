"""HotpotQA's rows: both settings and both layouts are one plain context; what is malformed is named."""

from __future__ import annotations

import doctest
import json

import pytest

from latentwire.data import hotpot
from latentwire.data.rows import read_examples
from latentwire.errors import UserError
from latentwire.types import Example

PARAGRAPHS = [["Ed Wood (film)", ["Ed Wood is a film.", " It is of 1994."]], ["Łódź", ["A city.", " ", "In Poland."]]]
ROW = {"_id": "5a8b57f25542995d1e6f1371", "question": "Is Ed Wood a film?", "answer": "yes", "context": PARAGRAPHS,
       "supporting_facts": [["Ed Wood (film)", 0]], "type": "comparison", "level": "hard"}  # fmt: skip
HUB = {
    **ROW,
    "id": ROW["_id"],
    "context": {"title": [p[0] for p in PARAGRAPHS], "sentences": [p[1] for p in PARAGRAPHS]},
}
HUB.pop("_id")
MADE = Example(
    str(ROW["_id"]), "Ed Wood (film): Ed Wood is a film. It is of 1994. Łódź: A city. In Poland.",
    "Is Ed Wood a film?", ("yes",), "hotpotqa",
)  # fmt: skip


def test_the_published_file_and_that_of_the_datasets_library(tmp_path):
    published, lines = tmp_path / "hotpot_dev_distractor_v1.json", tmp_path / "hotpot.jsonl"
    published.write_text(json.dumps([ROW]), encoding="utf-8")
    lines.write_text(json.dumps(HUB) + "\n", encoding="utf-8")
    assert read_examples(published) == read_examples(lines) == [MADE]


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ([["Ed"]], r"line 1, context\[0\]: expected \[title"),
        ([["Ed", "is"]], r"context\[0\]: expected a title and a list"),
        ([["Ed", ["is"]], [1, ["is"]]], r"context\[1\]: expected a title"),
        ({"title": ["Ed"], "sentences": []}, "without as many 'title'"),
        ({}, "without as many 'title'"),
        ([], "'context' is empty"),
    ],
)
def test_a_malformed_context_is_named(tmp_path, context, said):
    path = tmp_path / "hotpot.jsonl"
    path.write_text(json.dumps({**ROW, "context": context}) + "\n")
    with pytest.raises(UserError, match=said):
        read_examples(path)


def test_a_row_of_the_hidden_test_set_has_no_answer_to_score(tmp_path):
    path = tmp_path / "hotpot_test_fullwiki_v1.json"
    path.write_text(json.dumps([{key: value for key, value in ROW.items() if key != "answer"}]))
    with pytest.raises(UserError, match="'answers' must be"):
        read_examples(path)


def test_example_in_the_docstring():
    assert doctest.testmod(hotpot).failed == 0
