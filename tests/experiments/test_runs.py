"""What is read of a run's folder, and the one line for what is not one."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from latentwire.errors import UserError
from latentwire.experiments.runs import Evaluation, Training, lines, read_runs

ROW = {"receiver": "llama", "condition": "text", "ratio": None, "bits": None, "f1": 0.5, "f1_ci": [0.4, 0.6]}


def results(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps({"rows": rows or [ROW]}))
    return folder


def test_a_training_brings_its_own_evaluations(trained):
    runs = read_runs([trained])
    assert [(type(run), run.name) for run in runs] == [(Training, "run"), (Evaluation, "run/dev")]
    training, dev = runs
    assert isinstance(training, Training) and isinstance(dev, Evaluation)
    assert {line["source"] for line in training.metrics} >= {"text", "questions", "dev", "event"}
    assert len(training.diagnostics) == 2 and "on_collapse" in training.config
    assert dev.predictions == trained / "dev" / "predictions.jsonl"


def test_names_are_as_short_as_they_may_be(tmp_path):
    folders = [results(tmp_path / name) for name in ("a/run", "b/run", "b/other")]
    assert [run.name for run in read_runs(folders[1:])] == ["run", "other"]
    assert [run.name for run in read_runs(folders)] == ["a/run", "b/run", "b/other"]
    with pytest.raises(UserError, match="given twice"):
        read_runs([folders[0], folders[0] / ".." / "run"])


def test_a_results_file_has_no_answers_unless_it_is_a_runs_own(evaluated, tmp_path):
    copy = tmp_path / "sandbox.json"
    shutil.copy(evaluated / "results.json", copy)
    shutil.copy(evaluated / "predictions.jsonl", tmp_path / "predictions.jsonl")
    (run,) = read_runs([copy])
    assert isinstance(run, Evaluation) and run.predictions is None and run.name == "sandbox"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "no rows of an evaluation"),
        ('{"rows": []}', "no rows of an evaluation"),
        ('{"rows": [{"milliseconds": 3}]}', "no rows of an evaluation"),
        ('{"rows": ["f1"]}', "no rows of an evaluation"),
        (json.dumps({"rows": [ROW, ROW | {"f1": "high"}]}), "row 2: 'f1' is \"high\""),
        (json.dumps({"rows": [ROW | {"f1_ci": [0.4]}]}), "row 1: 'f1_ci' is [0.4]"),
        (json.dumps({"rows": [ROW | {"receiver": 3}]}), "row 1: 'receiver' is 3"),
    ],
)
def test_a_file_that_is_no_evaluation(tmp_path, text, said):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        read_runs([tmp_path])


def test_a_path_without_a_run(tmp_path):
    with pytest.raises(UserError, match=r"neither results\.json nor metrics\.jsonl"):
        read_runs([tmp_path])
    with pytest.raises(UserError, match="there is no"):
        read_runs([tmp_path / "nothing"])


def test_a_last_line_that_was_cut_off_is_left_out_and_a_broken_one_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    # a character at which Python would end a line stands inside one
    whole = json.dumps({"step": 1, "token": "\u2028"}, ensure_ascii=False)
    path.write_text(f'{whole}\n\n{{"step": 2}}\n{{"step": 3, "lo')
    assert [row["step"] for row, _ in lines(path)] == [1, 2]
    path.write_text(f'{whole}\n{{"step": \n{{"step": 3}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: not valid JSON"):
        list(lines(path))
    path.write_text('{"loss": 3}\n')
    with pytest.raises(UserError, match="no 'step'"):
        read_runs([tmp_path])
