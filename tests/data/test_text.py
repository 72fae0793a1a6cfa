"""Articles of plain text from JSON lines and from text files."""

from __future__ import annotations

import json
import lzma

import pytest

from latentwire.data.text import iter_articles
from latentwire.errors import UserError


def test_articles_in_the_order_of_file_names(tmp_path):
    (tmp_path / "b.txt").write_text("plain text, Łódź\n", encoding="utf-8")
    rows = [{"title": "One", "text": "first"}, {"text": "second"}, {"title": "Blank", "text": " "}]
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress("\n".join(map(json.dumps, rows)).encode()))
    (tmp_path / "c.csv").write_text("not text")
    (tmp_path / ".d.txt").write_text("hidden")
    assert list(iter_articles(tmp_path)) == ["One\nfirst", "second", "plain text, Łódź\n"]
    assert list(iter_articles(tmp_path, limit=2)) == ["One\nfirst", "second"]
    assert list(iter_articles(tmp_path, limit=0)) == []


def test_every_second_article_by_its_number_in_its_file(tmp_path):
    # blank lines have a number too: the same articles whatever is left out
    rows = [{"text": text} for text in ("one", "two", " ", "four", "five")]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows[:2])))
    assert list(iter_articles(tmp_path, lines="odd")) == ["one", "five", "one"]
    assert list(iter_articles(tmp_path, lines="even")) == ["two", "four", "two"]
    assert list(iter_articles(tmp_path, 2, "odd")) == ["one", "five"]


def test_text_below_the_data_folder(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.md").write_text("words")
    assert list(iter_articles(tmp_path)) == ["words"]


@pytest.mark.parametrize("row", [{"title": "One"}, {"text": 3}, {"text": "x", "title": 3}])
def test_a_malformed_row_is_named(tmp_path, row):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + json.dumps(row))
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: 't\w+' is no string"):
        list(iter_articles(tmp_path))


def test_no_text_and_no_folder(tmp_path):
    with pytest.raises(UserError, match="holds no text"):
        list(iter_articles(tmp_path))
    with pytest.raises(UserError, match="there is no folder"):
        list(iter_articles(tmp_path / "none"))
