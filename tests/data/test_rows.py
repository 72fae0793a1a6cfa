"""Anyone's rows: every accepted shape gives the same examples, every malformed one a line that says where and what."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentwire.data.rows import data_dir, read_examples
from latentwire.errors import UserError
from latentwire.types import Example

CONTEXT = "Ignacy Łukasiewicz built the first oil refinery in 1856. 東京 🙂"
ROW = {"context": CONTEXT, "question": "When?", "answers": ["1856"]}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("answers", [["1856"], "1856", {"text": ["1856"], "answer_start": [53]}])
def test_answers_may_have_three_shapes(tmp_path, answers):
    path = write(tmp_path / "a.jsonl", {**ROW, "answers": answers})
    assert read_examples(path) == [Example("row-1", CONTEXT, "When?", ("1856",))]


def test_answer_may_be_called_answer(tmp_path):
    path = write(
        tmp_path / "a.jsonl", {"context": CONTEXT, "question": "When?", "answer": "1856", "id": 7, "dataset": "d"}
    )
    assert read_examples(path) == [Example("7", CONTEXT, "When?", ("1856",), "d")]


def squad(*paragraphs):
    return {"version": "1.1", "data": [{"title": "Oil", "paragraphs": list(paragraphs)}]}


PARAGRAPH = {
    "context": CONTEXT,
    "qas": [
        {"id": "q1", "question": "When?", "answers": [{"text": "1856", "answer_start": 53}, {"text": "in 1856"}]},
        {"question": "Who?", "answers": [{"text": "Ignacy Łukasiewicz", "answer_start": 0}]},
    ],
}


@pytest.mark.parametrize("answers", [[], {"text": [], "answer_start": []}])
def test_a_question_may_have_no_answer_as_in_squad_2(tmp_path, answers):
    row = {**ROW, "answers": answers, "is_impossible": True, "plausible_answers": [{"text": "1853"}]}
    (found,) = read_examples(write(tmp_path / "a.jsonl", row))
    assert found.answers == () and found.gold == ""
    shaped = tmp_path / "dev-v2.0.json"
    qas = {key: row[key] for key in ("question", "is_impossible", "plausible_answers")} | {"answers": []}
    shaped.write_text(json.dumps(squad({"context": CONTEXT, "qas": [qas]})))
    assert read_examples(shaped)[0].answers == ()


def test_squad_shaped_json(tmp_path):
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(squad(PARAGRAPH), indent=1, ensure_ascii=False), encoding="utf-8")
    assert read_examples(path) == [
        Example("q1", CONTEXT, "When?", ("1856", "in 1856")),
        Example("Oil-0-1", CONTEXT, "Who?", ("Ignacy Łukasiewicz",)),
    ]


@pytest.mark.parametrize("text", [json.dumps([ROW, ROW]), f"{json.dumps(ROW)}\n{json.dumps(ROW)}\n"])
def test_json_may_be_a_list_or_json_lines(tmp_path, text):
    path = tmp_path / "rows.json"
    path.write_text(text)
    assert [e.id for e in read_examples(path)] == ["row-1", "row-2"]


def test_json_with_a_single_row(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROW))
    assert len(read_examples(path)) == 1


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_unicode_comes_back_unchanged(tmp_path, context, answer, escaped):
    path = tmp_path / "any.jsonl"
    row = {"context": context, "question": "?", "answers": [answer]}
    path.write_bytes(json.dumps(row, ensure_ascii=escaped).encode() + b"\n")
    assert read_examples(path) == [Example("row-1", context, "?", (answer,))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"context": None}, "'context' is not a string"),
        ({"context": ""}, "'context' is empty"),
        ({"context": " \n\t"}, "'context' is empty"),
        ({"question": "  "}, "'question' is empty"),
        ({"question": 3}, "'question' is not a string"),
        ({"answers": None}, "'answers' must be"),
        ({"answers": [1856]}, "'answers' must be"),
        ({"answers": ["1856", " "]}, "an answer is empty"),
        ({"context": "half a pair: \ud83d"}, "surrogate"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(tmp_path, change, said):
    path = write(tmp_path / "a.jsonl", ROW, {**ROW, **change}, ROW)
    with pytest.raises(UserError) as error:
        read_examples(path)
    line = str(error.value)
    assert line.startswith(f"{path}, line 2: ")
    assert said in line
    assert "\n" not in line


@pytest.mark.parametrize("key", ["context", "question", "answers"])
def test_a_missing_field_is_named(tmp_path, key):
    path = write(tmp_path / "a.jsonl", {k: v for k, v in ROW.items() if k != key})
    with pytest.raises(UserError, match=f"line 1: '{key}'"):
        read_examples(path)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"data": [{"title": "Oil"}]}, "data[0]: not SQuAD-shaped, expected an object with a list 'paragraphs'"),
        ({"data": ["Oil"]}, "data[0]: not SQuAD-shaped"),
        (squad({"context": CONTEXT}), "data[0].paragraphs[0]: not SQuAD-shaped, expected an object with a list 'qas'"),
        (squad({"qas": PARAGRAPH["qas"]}), "paragraphs[0].qas[0]: 'context' is missing"),
        (squad(PARAGRAPH, {**PARAGRAPH, "context": " "}), "paragraphs[1].qas[0]: 'context' is empty"),
        (squad({"context": CONTEXT, "qas": ["When?"]}), "paragraphs[0].qas[0]: expected an object"),
        (
            squad({"context": CONTEXT, "qas": [{"question": "?", "answers": [{"answer_start": 1}]}]}),
            "'answers' must be",
        ),
        ({"rows": []}, "expected SQuAD's"),
        ([ROW, "x"], "row 2: expected an object"),
        (squad(), "holds no rows"),
        ([], "holds no rows"),
    ],
)
def test_malformed_json_says_where(tmp_path, tree, said):
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError) as error:
        read_examples(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_broken_json_has_its_line(tmp_path):
    path = tmp_path / "squad.json"
    path.write_text('{"data": [\n  {"title": "Oil",\n}')
    with pytest.raises(UserError, match=r"line 3: not valid JSON"):
        read_examples(path)


def test_squad_json_named_jsonl_is_explained(tmp_path):
    path = write(tmp_path / "a.jsonl", squad(PARAGRAPH))
    with pytest.raises(UserError, match=r"name the file \.json"):
        read_examples(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_an_empty_file_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_text("\n \n")
    with pytest.raises(UserError, match="holds no rows"):
        read_examples(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_examples(tmp_path / "none.json")


def test_data_dir(tmp_path, monkeypatch):
    monkeypatch.delenv("LATENTWIRE_DATA", raising=False)
    with pytest.raises(UserError, match="--data-dir"):
        data_dir(None)
    monkeypatch.setenv("LATENTWIRE_DATA", str(tmp_path))
    assert data_dir(None) == tmp_path
    with pytest.raises(UserError, match="there is no data folder"):
        data_dir(tmp_path / "none")
