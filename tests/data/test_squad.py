"""The split: by article, stable, the same in every file and for everybody."""

from __future__ import annotations

import doctest
import hashlib
import json
import lzma

import pytest

from latentwire.data import squad
from latentwire.data.rows import read_examples
from latentwire.data.squad import article, kept_aside, load_split, shipped_valid, split_list
from latentwire.errors import UserError


@pytest.fixture(scope="module")
def valid():
    return read_examples(shipped_valid())


def test_shipped_questions_are_the_ones_that_figures_are_reported_on(valid):
    lines = lzma.decompress(shipped_valid().read_bytes())
    assert hashlib.sha256(lines).hexdigest() == squad.VALID_SHA256
    assert len(valid) == 4851
    assert len({e.context for e in valid}) == 941
    attribution = (shipped_valid().parent / "ATTRIBUTION.md").read_text()
    assert squad.VALID_SHA256 in attribution
    assert "CC BY-SA 4.0" in attribution
    assert "Rajpurkar" in attribution
    assert shipped_valid().stat().st_size < 400_000


def test_no_valid_article_is_trained_on(valid):
    train, titles = split_list()
    assert {article(e.id) for e in valid} == titles
    assert len(titles) == 22
    assert len(train) == 420
    assert not titles & set(train)
    # about one train article in twenty is for choices
    assert sum(kept_aside(title) for title in train) == 22


def test_list_names_paragraphs_and_questions():
    listed = split_list()[0]["2008_Sichuan_earthquake"]
    assert listed.has(8, 0)
    assert not listed.has(9, 0)
    assert listed.has(12, 5)
    assert not listed.has(12, 6)


def write(folder, name, titles):
    rows = [
        {"id": f"squad_v1-train-{t}-0-{n}", "context": f"About {t}.", "question": "Q?", "answers": ["About"]}
        for t in titles
        for n in range(2)
    ]
    (folder / "squad").mkdir(exist_ok=True)
    (folder / "squad" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_train_and_dev_share_no_article(tmp_path):
    titles = [f"Anti-{n}" for n in range(100)]
    write(tmp_path, "train.jsonl", titles)
    write(tmp_path, "valid.jsonl", ["Uranium"])
    train, dev, valid = (load_split(tmp_path, split) for split in ("train", "dev", "valid"))
    assert len(train) + len(dev) == 200
    assert {article(e.id) for e in dev} == {t for t in titles if kept_aside(t)}
    assert not {article(e.id) for e in dev} & {article(e.id) for e in train}
    assert [article(e.id) for e in valid] == ["Uranium"] * 2


def test_an_unfinished_file_is_not_taken_for_the_split(tmp_path):
    write(tmp_path, "train.jsonl.part", ["A"])
    with pytest.raises(UserError, match=r"has no train\.jsonl"):
        load_split(tmp_path, "train")
    with pytest.raises(UserError, match="there is no split 'test'"):
        load_split(tmp_path, "test")


def test_titles_may_hold_dashes():
    assert article("squad_v1-train-Anti-aircraft_warfare-12-4") == "Anti-aircraft_warfare"
    assert article("row-7") == "row-7"
    assert doctest.testmod(squad).failed == 0
