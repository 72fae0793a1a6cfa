"""`latentwire data prepare`: the split from public files, text in shards, and runs that were stopped."""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import sys
import types

import pytest

from latentwire.data import gather, prepare
from latentwire.data.files import read_jsonl
from latentwire.data.rows import read_examples
from latentwire.data.squad import VALID_SHA256, article, load_split, shipped_valid, split_list
from latentwire.data.text import iter_articles
from latentwire.errors import UserError

LISTED, VALID_TITLE, UNLISTED = "2008_Sichuan_earthquake", "Uranium", "Super_Bowl_50"


def question(text, answer="word"):
    return {"id": "x", "question": text, "answers": [{"text": answer, "answer_start": 0}]}


def public(path, *titles, paragraphs=77):
    """A file as SQuAD's, white space and a repeated question included."""
    data = [
        {
            "title": title,
            "paragraphs": [
                {
                    "context": f" {title}  {p}\nword ",
                    "qas": [question(f" Q{q}? ") for q in range(8)] + [question("Q0?")],
                }
                for p in range(paragraphs)
            ],
        }
        for title in titles
    ]
    path.write_text(json.dumps({"version": "1.1", "data": data}))
    return path


def run(out, **inputs):
    return list(prepare.prepare(out, **inputs))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_squad_files(tmp_path):
    train = public(tmp_path / "train-v1.1.json", LISTED, VALID_TITLE)
    dev = public(tmp_path / "dev-v1.1.json", UNLISTED, paragraphs=1)
    lines = run(tmp_path / "out", squad=[train, dev])
    assert any("419 of 420 train articles are missing" in line for line in lines)

    rows = [row for _, row in read_jsonl(tmp_path / "out" / "squad" / "train.jsonl")]
    listed = split_list()[0][LISTED]
    assert [row["id"] for row in rows] == [
        f"squad_v1-train-{LISTED}-{p}-{q}" for p in range(77) for q in range(8) if listed.has(p, q)
    ]
    assert rows[0] == {
        "id": f"squad_v1-train-{LISTED}-0-0",
        "dataset": "squad_v1",
        "context": f"{LISTED} 0 word",
        "question": "Q0?",
        "answers": ["word"],
    }
    # articles of the official dev set are for nobody's training
    test = read_examples(tmp_path / "out" / "squad" / "test.jsonl")
    assert {article(e.id) for e in test} == {UNLISTED}
    assert len(test) == 8
    # the very bytes that figures are reported on
    valid = (tmp_path / "out" / "squad" / "valid.jsonl").read_bytes()
    assert hashlib.sha256(valid).hexdigest() == VALID_SHA256
    assert {article(e.id) for e in load_split(tmp_path / "out", "train")} == {LISTED}


def test_running_again_changes_nothing(tmp_path):
    out, source = tmp_path / "out", tmp_path / "wiki"
    source.mkdir()
    (source / "a.txt").write_text("One two three.")
    inputs = {"squad": [public(tmp_path / "train.json", LISTED)], "text": str(source)}
    run(out, **inputs)
    before = contents(out)
    times = [path.stat().st_mtime_ns for path in sorted(out.rglob("*.jsonl*"))]
    again = run(out, **inputs)
    assert contents(out) == before
    assert [path.stat().st_mtime_ns for path in sorted(out.rglob("*.jsonl*"))] == times
    assert all("as before" in line for line in again if line.startswith(str(out)))


def test_digest_tells_whether_the_rows_are_those_of_the_shipped_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "split_list", lambda: ({LISTED: split_list()[0][LISTED]}, frozenset()))
    train = public(tmp_path / "train.json", LISTED)
    assert "differs from the rows" in run(tmp_path / "out", squad=[train])[1]
    rows = [row for _, row in read_jsonl(tmp_path / "out" / "squad" / "train.jsonl")]
    monkeypatch.setattr(prepare, "TRAIN_DIGEST", prepare.digest(reversed(rows)))
    assert "the very rows" in run(tmp_path / "out", squad=[train])[1]


def test_bad_squad_files_are_refused(tmp_path):
    out = tmp_path / "out"
    short = public(tmp_path / "short.json", LISTED, paragraphs=5)
    with pytest.raises(UserError, match=r"has 5 paragraphs, SQuAD v1\.1 has at least 77"):
        run(out, squad=[short])
    whole = public(tmp_path / "whole.json", LISTED)
    twin = public(tmp_path / "twin.json", LISTED)
    with pytest.raises(UserError, match="give each file once"):
        run(out, squad=[whole, twin])
    lines = tmp_path / "rows.json"
    lines.write_text('[{"context": "c", "question": "q", "answers": ["c"]}]')
    with pytest.raises(UserError, match=r"is not SQuAD v1\.1 JSON"):
        run(out, squad=[lines])
    with pytest.raises(UserError, match="there is no file"):
        run(out, squad=[tmp_path / "none.json"])
    with pytest.raises(UserError, match="nothing to prepare"):
        run(out)
    with pytest.raises(UserError, match="is a file; a folder is needed"):
        run(whole, squad=[whole])
    assert not (out / "squad").exists()


@pytest.fixture
def wiki(tmp_path):
    """Thirty articles in three files of different kinds, one of them below another folder."""
    folder = tmp_path / "my wiki"
    (folder / "more").mkdir(parents=True)
    rows = [json.dumps({"title": f"T{n}", "text": f"Text {n}. Łódź, 東京. " * 5}) for n in range(28)]
    (folder / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "b.txt").write_text("A plain file.")
    (folder / "more" / "c.md").write_text("# Another")
    (folder / "d.txt").write_text(" \n")
    return folder


def texts(out):
    return list(iter_articles(out))


def test_text_of_a_folder(wiki, tmp_path):
    lines = run(tmp_path / "out", text=str(wiki))
    assert len(texts(tmp_path / "out")) == 30
    assert texts(tmp_path / "out")[0] == "T0\n" + "Text 0. Łódź, 東京. " * 5
    assert texts(tmp_path / "out")[-2:] == ["A plain file.", "# Another"]
    assert lines == [f"{tmp_path / 'out' / 'text' / 'my-wiki-00.jsonl.xz'}: 30 articles"]
    _, row = next(read_jsonl(tmp_path / "out" / "text" / "my-wiki-00.jsonl.xz"))
    assert set(row) == {"id", "source", "title", "text"}


def test_articles_limits_the_text(wiki, tmp_path):
    run(tmp_path / "out", text=str(wiki), articles=3)
    assert len(texts(tmp_path / "out")) == 3
    with pytest.raises(UserError, match="at least 1"):
        run(tmp_path / "out", text=str(wiki), articles=0)


def test_a_stopped_run_goes_on_behind_its_last_shard(wiki, tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "SHARD", 700)  # seven articles or so
    run(tmp_path / "whole", text=str(wiki))
    whole = contents(tmp_path / "whole" / "text")
    assert len(whole) > 3

    out, seen = tmp_path / "out", []
    real = gather.Overlap.within

    def stop(self, text):
        seen.append(text)
        if len(seen) == 17:
            raise KeyboardInterrupt
        return real(self, text)

    monkeypatch.setattr(gather.Overlap, "within", stop)
    with pytest.raises(KeyboardInterrupt):
        run(out, text=str(wiki))
    finished = contents(out / "text")
    assert 0 < len(finished) < len(whole)
    # nothing half-written among the files that training reads
    assert all(finished[name] == whole[name] for name in finished)
    lines = run(out, text=str(wiki))
    assert "going on behind" in lines[0]
    assert contents(out / "text") == whole
    # only what was not finished was read again
    assert len(seen) - 17 < 25
    assert not list((out / ".prepare").glob("*.xz*"))


def test_a_missing_shard_is_made_again(wiki, tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "SHARD", 700)
    run(tmp_path / "out", text=str(wiki))
    whole = contents(tmp_path / "out" / "text")
    (tmp_path / "out" / "text" / "my-wiki-01.jsonl.xz").unlink()
    run(tmp_path / "out", text=str(wiki))
    assert contents(tmp_path / "out" / "text") == whole


def test_a_changed_folder_is_gathered_anew(wiki, tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "SHARD", 700)
    run(tmp_path / "out", text=str(wiki))
    (wiki / "a.jsonl").unlink()
    run(tmp_path / "out", text=str(wiki))
    assert texts(tmp_path / "out") == ["A plain file.", "# Another"]
    # notes that were damaged cost time, nothing else
    (tmp_path / "out" / ".prepare" / "my-wiki.json").write_text("{")
    run(tmp_path / "out", text=str(wiki))
    assert texts(tmp_path / "out") == ["A plain file.", "# Another"]


def test_texts_that_hold_a_valid_passage_are_left_out(wiki, tmp_path):
    context = read_examples(shipped_valid())[7].context
    (wiki / "copy.txt").write_text("An article begins. " + context.upper().replace(",", " --") + " And it goes on.")
    (wiki / "quote.txt").write_text("It quotes: " + " ".join(context.split()[:12]))
    lines = run(tmp_path / "out", text=str(wiki))
    assert "1 left out" in lines[0]
    assert sum("quotes" in text for text in texts(tmp_path / "out")) == 1
    assert not any("article begins" in text for text in texts(tmp_path / "out"))


def test_texts_that_hold_a_passage_of_the_official_dev_set_are_left_out(wiki, tmp_path):
    dev = public(tmp_path / "dev.json", UNLISTED, paragraphs=1)
    passage = "One two three four five six seven eight nine ten eleven."
    dev.write_text(dev.read_text().replace(f" {UNLISTED}  0\\nword ", passage + " word"))
    (wiki / "copy.txt").write_text(passage)
    run(tmp_path / "out", squad=[dev], text=str(wiki))
    assert passage not in texts(tmp_path / "out")
    assert len(texts(tmp_path / "out")) == 30


def test_bad_text_is_refused(wiki, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    for text, said in (
        (tmp_path / "empty", "holds no text"),
        (wiki / "b.txt", "is a file; give the folder"),
        (tmp_path / "none", "there is no folder"),
        ("nowhere/", "there is no folder nowhere/"),
        (tmp_path, "also holds the output"),
    ):
        with pytest.raises(UserError, match=said):
            run(out, text=str(text))
    (wiki / "bad.jsonl").write_text('{"text": "fine"}\n{"text": 3}')
    with pytest.raises(UserError, match=r"bad\.jsonl, line 2"):
        run(out, text=str(wiki))
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank" / "a.txt").write_text(" ")
    with pytest.raises(UserError, match="no text that can be used"):
        run(out, text=str(tmp_path / "blank"))


class Stream:
    """What `datasets` gives for streaming=True, as far as it is used."""

    def __init__(self, rows):
        self.rows = rows

    def skip(self, n):
        return Stream(self.rows[n:])

    def __iter__(self):
        for row in self.rows:
            if isinstance(row, Exception):
                raise row
            yield row


@pytest.fixture
def hub(monkeypatch):
    """A `datasets` module with one set, whose rows a test may change."""
    rows: list = [{"id": n, "title": f"T{n}", "text": f"Text {n}. " * 12} for n in range(20)]

    def load_dataset(path, name, *, split, streaming):
        assert (split, streaming) == ("train", True)
        if (path, name) != ("some/wiki", "2023.en"):
            raise FileNotFoundError(f"no set {path}\nand more lines")
        return Stream(rows)

    module = types.ModuleType("datasets")
    module.__spec__ = importlib.machinery.ModuleSpec("datasets", None)
    module.__dict__["load_dataset"] = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return rows


def test_text_of_a_datasets_name(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "SHARD", 700)
    run(tmp_path / "whole", text="some/wiki:2023.en", articles=15)
    assert len(texts(tmp_path / "whole")) == 15
    # a line that breaks off, and the same command again
    row, hub[12] = hub[12], ConnectionError("reset by peer")
    with pytest.raises(UserError, match=r"broke off after 12 articles \(reset by peer\).*goes on from there"):
        run(tmp_path / "out", text="some/wiki:2023.en", articles=15)
    hub[12] = row
    run(tmp_path / "out", text="some/wiki:2023.en", articles=15)
    assert contents(tmp_path / "out" / "text") == contents(tmp_path / "whole" / "text")


def test_bad_datasets_names_are_refused(hub, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"cannot open the `datasets` set other/wiki: no set other/wiki$"):
        run(tmp_path, text="other/wiki")
    hub[0] = {"body": "x", "id": 1}
    with pytest.raises(UserError, match="has no column 'text'; it has body, id"):
        run(tmp_path, text="some/wiki:2023.en")
    monkeypatch.setattr(gather, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"latentwire\[datasets\]"):
        run(tmp_path, text="some/wiki:2023.en")
