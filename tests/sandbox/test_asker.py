"""The model that asks, at tiny size: it learns to ask, is resumed, and what it writes is of use."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from latentwire.config import load
from latentwire.data.rows import read_examples
from latentwire.data.squad import load_split
from latentwire.prompt import Prompt, PromptConfig
from latentwire.receivers.tokenizer import load_tokenizer
from latentwire.sandbox import asker, asking, checkpoint, tokenizers
from latentwire.sandbox.asker import AskerConfig, AskerRun, groups, read_back
from latentwire.sandbox.trunk import Shape, init

CONFIG = Path(__file__).parents[2] / "configs" / "sandbox" / "askers" / "asker.yaml"
SHAPE = {"family": "llama", "vocabulary": 12000, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_width": 8}
SHAPE |= {"ff": 48, "positions": 512}
SMALL = (f"shape={json.dumps(SHAPE)}", "epochs=300", "batch=4", "rate=0.01", "questions={warmup: 2, start: 1.0}",
         "row=128", "log_every=25", "device=cpu")  # fmt: skip
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
def reader(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reader") / "reader"
    checkpoint.export(Shape(**SHAPE), init(Shape(**SHAPE), 0), tokenizers.shipped("llama"), folder)
    return folder


@pytest.fixture(scope="module")
def prompt(reader) -> Prompt:
    return Prompt(PromptConfig(), load_tokenizer(reader))


@pytest.fixture(scope="module")
def trained(data, reader, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("askers")
    asker.main(command(data, reader, out))
    return out / "asker"


def command(data, reader, out, *more) -> list[str]:
    return [str(CONFIG), *SMALL, f"start={reader}", f"out={out}", *more, "--data-dir", str(data)]


def test_the_config_that_comes_along_is_one():
    found = load(CONFIG, AskerConfig)
    assert found.start == "sandbox:llama" and found.shape.parameters() == 20_836_224


def test_a_group_is_a_passage_and_all_its_pairs_read_backwards(prompt):
    group = groups([("A passage.", PAIRS)], prompt, 300, Random(0))[0]
    assert group.context == prompt.head_ids() + prompt.context_ids(["A passage."])[0]
    ((anchor, learnt),) = group.blocks
    assert anchor == prompt.anchor_ids() and learnt[-1] == prompt.eos_id
    assert sorted(read_back(prompt.tokenizer.decode(learnt[:-1]), prompt)) == sorted(PAIRS)


def test_pairs_that_do_not_fit_are_left_out_and_so_is_a_passage_without_any(prompt):
    def size(found):
        return len(found.context) + sum(map(len, found.blocks[0]))

    whole = size(groups([("A passage.", PAIRS)], prompt, 300, Random(0))[0])
    fewer = groups([("A passage.", PAIRS)], prompt, whole - 1, Random(0))
    assert len(fewer) == 1 and size(fewer[0]) < whole - 1
    assert groups([("A passage.", PAIRS)], prompt, 12, Random(0)) == []


@pytest.mark.parametrize("text", [" a\nQuestion: b", " a\nQuestion: What? Why?", "\nQuestion: What?", " a", ""])
def test_what_is_unfinished_is_no_question(text, prompt):
    assert read_back(text, prompt) == []


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
    later = [text for part in (0, 1) for text in asking.passages(data, part, 2, skip=2)]
    assert sorted(later) == sorted(whole[2:])


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


def test_what_was_measured_stands_beside_the_weights(trained):
    facts = json.loads((trained / "checkpoint" / "measured.json").read_text())
    assert facts["passages"] == 3 and facts["loss"] is None and facts["steps"] == math.ceil(facts["rows"] / 4)
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert {line["phase"] for line in lines} == {"questions"} and lines[-1]["answer"] < lines[0]["answer"] / 4


def test_the_loss_on_the_slice_kept_aside_is_told(data, reader, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(asker, "load_split", lambda data, name: load_split(data, "train"))
    learnt = AskerRun(load(CONFIG, AskerConfig, [*SMALL, f"start={trained / 'checkpoint'}", f"out={tmp_path}"]), data)
    fresh = AskerRun(load(CONFIG, AskerConfig, [*SMALL, f"start={reader}", f"out={tmp_path}"]), data)
    after, before = learnt.loss_aside(), fresh.loss_aside()
    assert after is not None and before is not None and after < before / 4


def test_killed_and_resumed_it_ends_with_the_same_weights(data, reader, trained, tmp_path, monkeypatch):
    saved = AskerRun.save

    def save_then_stop(self, feed):
        saved(self, feed)
        raise KeyboardInterrupt

    monkeypatch.setattr(AskerRun, "save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        asker.main(command(data, reader, tmp_path, "save_minutes=0"))
    assert not (tmp_path / "asker" / "checkpoint").exists()
    monkeypatch.undo()
    asker.main(command(data, reader, tmp_path, "save_minutes=0"))
    one, two = (load_file(path / "checkpoint" / "model.safetensors") for path in (trained, tmp_path / "asker"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_without_people_s_questions_there_is_nothing_to_learn(data, reader, tmp_path):
    with pytest.raises(SystemExit, match="no passage of people's questions fits 16 tokens"):
        asker.main(command(data, reader, tmp_path, "row=16"))
