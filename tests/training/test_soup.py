"""The greedy mean: it is the best of what was judged, and what makes it worse stays out."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import yaml

from latentwire.config import load
from latentwire.training import soup
from latentwire.training.config import TrainConfig
from latentwire.training.run import train
from latentwire.wire import Wire


@pytest.fixture(scope="module")
def runs(tiny_tree, tmp_path_factory):
    """Two short runs from one wire, and a copy of the first with noise on its weights."""
    root = tmp_path_factory.mktemp("soup")
    config = root / "wire.yaml"
    config.write_text(yaml.safe_dump(tiny_tree))
    start = train(config, ["steps=2"], out=root / "start")
    for seed in (0, 1):
        train(config, ["steps=3", f"start={start}", f"seed={seed}"], out=root / f"run{seed}")
    worse = Wire.from_pretrained(root / "run0" / "wire")
    luck = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in worse.parameters():
            weight += 0.5 * weight.std(correction=0) * torch.randn(weight.shape, generator=luck)
    worse.save_pretrained(root / "worse")
    return root


def test_the_mean_is_the_best_that_was_judged(runs, tmp_path, capsys):
    wires = [str(runs / name) for name in ("worse", "run0/wire", "run1/wire")]
    soup.main([str(tmp_path / "mean"), *wires, "--config", str(runs / "run0" / "config.yaml"), "--dev", "24"])
    rows = [json.loads(line) for line in (tmp_path / "mean" / soup.JUDGED).read_text().splitlines()]
    assert [row["wires"] for row in rows[:3]] == [[wire] for wire in wires]
    best = min(rows, key=lambda row: row["score"])
    assert " + ".join(best["wires"]) in capsys.readouterr().out.splitlines()[-1]
    # loaded again, the mean scores what it was chosen for
    judge = soup.Judge(load(runs / "run0" / "config.yaml", TrainConfig), wires[0], None, 24)
    again = judge.losses(Wire.from_pretrained(tmp_path / "mean").state_dict())
    assert judge.score(again) == pytest.approx(best["score"], abs=1e-4)


def test_a_wire_that_makes_the_mean_worse_stays_out(monkeypatch):
    scores = {"a": 3.0, "b": 1.0, "c": 2.0, "b c": 1.5, "b a": 0.5}
    monkeypatch.setattr(soup, "mean_of", lambda names, *_: SimpleNamespace(state_dict=lambda: " ".join(names)))
    judge = SimpleNamespace(
        losses=lambda names: {"score": scores[names]}, score=lambda found: found["score"],
        run=SimpleNamespace(names=["llama"]), accelerator=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    chosen, rows = soup.greedy(["a", "b", "c"], judge)
    assert chosen == ["b", "a"]
    assert [row["wires"] for row in rows] == [["a"], ["b"], ["c"], ["b", "c"], ["b", "a"]]


def test_one_wire_and_no_questions_are_refused(runs, tmp_path):
    config = ["--config", str(runs / "run0" / "config.yaml")]
    with pytest.raises(SystemExit, match="at least two wires"):
        soup.main([str(tmp_path / "mean"), str(runs / "worse"), *config])
