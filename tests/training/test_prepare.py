"""``latentwire train --prepare``: what is tokenised beforehand is what the run finds, also for runs of other seeds."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from latentwire.cli import app
from latentwire.errors import UserError
from latentwire.training import setup
from latentwire.training.config import TrainConfig
from latentwire.training.run import train
from latentwire.training.setup import keep_stores


def test_a_run_finds_what_was_prepared(tiny_config, tmp_path, monkeypatch):
    cache = ["corpus.cache=" + str(tmp_path / "cache"), "corpus.seed=7", "steps=1"]
    said = CliRunner().invoke(app, ["train", str(tiny_config), *cache, "--prepare"], catch_exceptions=False)
    assert said.exit_code == 0 and "questions, " in said.output and not list(tmp_path.glob("**/wire"))
    kept = sorted(path.name for path in (tmp_path / "cache").glob("*.npz"))
    assert {name.split("-")[0] for name in kept} == {"text", "questions", "dev"}

    def never(*_: object) -> None:
        raise AssertionError("tokenised again")

    for store in ("text_store", "question_store"):
        monkeypatch.setattr(setup, store, never)
    for seed in (0, 1):
        train(tiny_config, [*cache, f"seed={seed}"], out=tmp_path / f"run{seed}")
    assert sorted(path.name for path in (tmp_path / "cache").glob("*.npz")) == kept


def test_without_a_folder_nothing_is_prepared():
    with pytest.raises(UserError, match=r"corpus\.cache names no folder"):
        keep_stores(TrainConfig(), None)
