"""One run from its config to its figures, and ``latentwire train CONFIG --eval``."""

from __future__ import annotations

import json

import pytest
import yaml

from experiments.conftest import SHORT
from latentwire import cli
from latentwire.config import decode
from latentwire.data.rows import read_examples
from latentwire.data.squad import shipped_valid
from latentwire.errors import UserError
from latentwire.experiments.settings import EvaluateConfig
from latentwire.experiments.trial import questions
from latentwire.training.config import TrainConfig


@pytest.fixture
def config(tiny_tree) -> TrainConfig:
    return decode(TrainConfig, tiny_tree)


def test_questions_are_those_aside_those_that_come_along_or_of_a_file(config, corpus):
    aside = questions(config, None, EvaluateConfig(n=0))
    everything = read_examples(corpus / "questions.jsonl")
    assert 0 < len(aside) < len(everything) and {e.id for e in aside} < {e.id for e in everything}
    drawn = [questions(config, None, EvaluateConfig(n=3, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and all(len(rows) == 3 for rows in drawn)
    file = questions(config, None, EvaluateConfig(n=0, questions=str(corpus / "questions.jsonl")))
    assert file == everything
    valid = questions(config, None, EvaluateConfig(n=5, questions="valid"))
    assert {e.id for e in valid} < {e.id for e in read_examples(shipped_valid())}


def test_a_run_without_questions_aside_says_what_to_do(config, tmp_path):
    row = {"id": "q", "context": "A letter was sent from Oslo.", "question": "From where?", "answers": ["Oslo"]}
    (tmp_path / "one.jsonl").write_text(json.dumps(row) + "\n")
    config.corpus.questions = str(tmp_path / "one.jsonl")
    with pytest.raises(UserError, match=r"set evaluate\.questions to valid"):
        questions(config, None, EvaluateConfig())


def test_a_training_answers_questions_that_come_along_when_it_is_done(tiny_tree, tmp_path, capsys):
    path, out = tmp_path / "wire.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(tiny_tree))
    short = [f"{key}={value}" for key, value in SHORT.items()]
    argv = ["train", str(path), *short, "--out", str(out), "--eval", "2"]
    assert cli.main(argv) == 0
    printed = capsys.readouterr().out
    found = json.loads((out / "valid" / "results.json").read_text())
    assert found["data"]["n"] == 2 and str(out / "valid" / "results.json") in printed
    measured = {(row["receiver"], row["condition"], row["ratio"]) for row in found["rows"]}
    assert measured == {
        (name, *what)
        for name in ("llama", "gemma")
        for what in (("text", None), ("none", None), ("latents", 4), ("latents", 8))
    }
    assert "latents" in printed and "llama" in printed
    assert cli.main([*argv[:-1], "-1"]) == 2
    capsys.readouterr()
