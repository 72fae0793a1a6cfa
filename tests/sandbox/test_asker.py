"""The model that asks, at tiny size: it learns to ask, is resumed, and what it writes is of use."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

from latentwire.config import load
from latentwire.data.rows import read_examples
from latentwire.prompt import Prompt, PromptConfig
from latentwire.receivers.tokenizer import load_tokenizer
from latentwire.sandbox import asker, asking
from latentwire.sandbox.asker import IGNORE, AskerConfig, read_back, rows

CONFIG = Path(__file__).parents[2] / "configs" / "sandbox" / "askers" / "asker.yaml"
SMALL = ("epochs=24", "batch=2", "rate=0.01", "warmup=2", "longest=300", "device=cpu")
PAIRS = [("Amundsen", "Who led it?"), ("1911", "When did they arrive?")]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "squad").mkdir()
    (folder / "text").mkdir()
    passages = [
        f"The {place} expedition of 1911 was led by Amundsen to the pole." for place in ("South", "City", "Roald")
    ]
    with (folder / "squad" / "train.jsonl").open("w") as file:
        for number, passage in enumerate(passages):
            for which, (answer, question) in enumerate(PAIRS):
                row = {"id": f"squad_v1-train-Pole-{number}-{which}", "context": passage, "question": question}
                file.write(json.dumps({**row, "answers": [answer]}) + "\n")
    lines = "\n".join(
        f"The letter number {n} went from Oslo to the South Pole and was read by many." * 6 for n in range(4)
    )
    (folder / "text" / "some.jsonl").write_text(json.dumps({"title": "Letters", "text": lines}) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(data, tiny_readers, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("askers")
    asker.main(command(data, tiny_readers, out))
    return out / "asker"


def command(data, readers, out) -> list[str]:
    return [str(CONFIG), *SMALL, f"start={readers['llama']}", f"out={out}", "--data-dir", str(data)]


def test_the_config_that_comes_along_is_one():
    assert load(CONFIG, AskerConfig).start == "sandbox:llama"


def test_a_row_is_a_passage_and_all_its_pairs_read_backwards(tiny_readers):
    prompt = Prompt(PromptConfig(), load_tokenizer(tiny_readers["llama"]))
    row = rows([("A passage.", PAIRS)], prompt, 300, Random(0))[0]
    start = len(prompt.head_ids() + prompt.context_ids(["A passage."])[0])
    assert row["labels"][:start] == [IGNORE] * start and row["labels"][start:] == row["input_ids"][start:]
    assert row["input_ids"][-1] == prompt.eos_id
    text = prompt.tokenizer.decode(row["input_ids"][start:-1])
    assert sorted(read_back(text.removeprefix(prompt.config.anchor), prompt)) == sorted(PAIRS)


def test_pairs_that_do_not_fit_are_left_out_and_so_is_a_passage_without_any(tiny_readers):
    prompt = Prompt(PromptConfig(), load_tokenizer(tiny_readers["llama"]))
    whole = len(rows([("A passage.", PAIRS)], prompt, 300, Random(0))[0]["input_ids"])
    fewer = rows([("A passage.", PAIRS)], prompt, whole - 1, Random(0))
    assert len(fewer) == 1 and len(fewer[0]["input_ids"]) < whole - 1
    assert rows([("A passage.", PAIRS)], prompt, 20, Random(0)) == []


@pytest.mark.parametrize("text", [" a\nQuestion: b", " a\nQuestion: What? Why?", "\nQuestion: What?", " a", ""])
def test_what_is_unfinished_is_no_question(text, tiny_readers):
    assert read_back(text, Prompt(PromptConfig(), load_tokenizer(tiny_readers["llama"]))) == []


def test_it_writes_questions_whose_answers_stand_in_the_passage(data, trained, tmp_path):
    out = tmp_path / "written.jsonl"
    given = [str(trained / "checkpoint"), "--passages", "3", "--data-dir", str(data), "--temperature", "0"]
    asking.main([*given, "--out", str(out)])
    found = read_examples(out)
    assert found and all(row.answers[0] in row.context for row in found)
    assert {(row.answers[0], row.question) for row in found} <= set(PAIRS)
    assert len({(row.context, row.question) for row in found}) == len(found) == len({row.id for row in found})


def test_parts_share_the_passages_and_text_follows_people_s(data):
    whole = list(asking.passages(data, 0, 1))
    parts = [list(asking.passages(data, part, 2)) for part in (0, 1)]
    assert sorted(parts[0] + parts[1]) == sorted(whole) and not set(parts[0]) & set(parts[1])
    assert whole[0].startswith("The South expedition") and "letter" in whole[-1]


def test_an_untrained_one_that_writes_nothing_of_use_is_told(data, tiny_readers, tmp_path, capsys):
    out = tmp_path / "written.jsonl"
    given = [str(tiny_readers["gpt2"]), "--passages", "2", "--data-dir", str(data), "--out", str(out)]
    with pytest.raises(SystemExit, match="no question about"):
        asking.main(given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["2/2", "x", "1", "0/0"])
def test_a_part_that_is_none_is_refused(part, data, trained):
    with pytest.raises(SystemExit, match="--part is I/N"):
        asking.main([str(trained / "checkpoint"), "--part", part, "--data-dir", str(data)])


def test_stopped_and_resumed_it_ends_with_the_same_weights(data, tiny_readers, trained, tmp_path, monkeypatch):
    saved = Trainer._save_checkpoint

    def save_then_stop(self, *given, **more):
        saved(self, *given, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_save_checkpoint", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        asker.main(command(data, tiny_readers, tmp_path))
    assert not (tmp_path / "asker" / "checkpoint").exists() and len(list((tmp_path / "asker").glob("state-*"))) == 1
    monkeypatch.undo()
    asker.main(command(data, tiny_readers, tmp_path))
    one, two = (load_file(path / "checkpoint" / "model.safetensors") for path in (trained, tmp_path / "asker"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert not list((tmp_path / "asker").glob("state-*"))
    assert json.loads((trained / "checkpoint" / "measured.json").read_text())["passages"] == 3
