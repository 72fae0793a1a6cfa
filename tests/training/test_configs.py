"""Every training config that comes along runs, in the form of ``latentwire train --smoke``."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentwire.commands.train import SMOKE
from latentwire.config import load
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
