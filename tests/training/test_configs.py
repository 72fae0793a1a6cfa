"""Every training config that comes along runs, in the form of ``latentwire train --smoke``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentwire.commands.train import SMOKE
from latentwire.config import load
from latentwire.errors import UserError
from latentwire.training.config import TrainConfig
from latentwire.training.run import check, train
from latentwire.wire import Wire

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs" / "sandbox").glob("*.yaml"))
IN_README = {path for path in CONFIGS if f"train configs/sandbox/{path.name}" in (ROOT / "README.md").read_text()}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_can_be_read_and_makes_sense(path):
    check(load(path, TrainConfig))


@pytest.mark.parametrize("path", sorted(set(CONFIGS) - IN_README), ids=lambda path: path.stem)
def test_it_runs(path, corpus, tmp_path):
    """Those of the README run with its other commands."""
    data = [f"corpus.text={corpus / 'text'}", f"corpus.questions={corpus / 'questions.jsonl'}", "corpus.shortest=16"]
    where = train(path, [*SMOKE.split(), *data], out=tmp_path / "run")
    wire = Wire.from_pretrained(where)
    packet = wire.encode(["Letters were sent from Oslo."], ratio=wire.ratios[0])[0]
    assert all(isinstance(wire.receiver(name).generate(packet, "From where?"), str) for name in wire.receivers)


def test_a_ratio_the_encoder_was_not_made_for_is_refused():
    with pytest.raises(UserError, match="ratios names 5, the encoder is made for 4, 8, 16"):
        check(load(ROOT / "configs" / "sandbox" / "wire.yaml", TrainConfig, ["ratios=[4,5]"]))


def test_the_ratios_of_steps_are_drawn_as_often_as_they_stand_there(tiny_config, tmp_path):
    train(tiny_config, ["steps=12", "ratios=[4,4,4,8]", "eval_every=0"], out=tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    drawn = [row["ratio"] for row in map(json.loads, lines) if row["source"] != "dev"]
    assert len(drawn) == 12 and set(drawn) == {4, 8}
    assert drawn.count(4) > drawn.count(8)
