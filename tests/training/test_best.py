"""How the best checkpoint is chosen."""

from __future__ import annotations

import json

import pytest
import torch

from latentwire.training.run import train
from latentwire.training.step import Step
from latentwire.wire import Wire

MEASURED = [3.0, 2.6, 2.4, 1.4, 3.4, 3.2]
"""Loss on the rows kept aside after each step: it falls, once by luck, then rises."""


def test_defect_16_the_best_is_chosen_by_a_smoothed_value_on_rows_kept_aside(tiny_config, tmp_path, monkeypatch):
    plain_forward, plain_save = Step.forward, Wire.save_pretrained
    drawn, kept = [], []

    def forward(self, batch, *args):
        loss, metrics = plain_forward(self, batch, *args)
        if not self.wire.training:
            drawn.append(batch.source["ids"])
            value = torch.tensor(MEASURED[(len(drawn) - 1) // 2])  # two ratios an evaluation
            metrics |= {key: value for key in metrics if key.endswith("/answer")}
        return loss, metrics

    def save(self, directory, **kwargs):
        kept.append((directory.name, (len(drawn) - 1) // 2))
        return plain_save(self, directory, **kwargs)

    monkeypatch.setattr(Step, "forward", forward)
    monkeypatch.setattr(Wire, "save_pretrained", save)
    train(tiny_config, ["eval_every=1", "save_every=0", "steps=6", "best_over=2"], out=tmp_path / "run")

    share, smoothed = 0.5**0.5, [MEASURED[0]]
    for value in MEASURED[1:]:
        smoothed.append(share * smoothed[-1] + (1 - share) * value)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    dev = [row for row in rows if row["source"] == "dev"]
    assert [row["smoothed"] for row in dev] == pytest.approx(smoothed, abs=1e-4)
    better = [i for i in range(len(smoothed)) if smoothed[i] < min(smoothed[:i], default=9.0)]
    assert [number for name, number in kept if name == "best"] == better == [0, 1, 2, 3]
    assert all(torch.equal(ids, drawn[0]) for ids in drawn), "values of other rows cannot be compared"


def test_the_finished_wire_answers_questions_kept_aside(tiny_config, tmp_path):
    train(tiny_config, ["steps=2", "score=5"], out=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "dev" / "results.json").read_text())
    assert {(row["receiver"], row["condition"], row["ratio"], row["n"]) for row in results["rows"]} == {
        (name, *given, 5)
        for name in ("llama", "gemma")
        for given in (("text", None), ("none", None), ("latents", 4), ("latents", 8))
    }
    assert results["kinds"]
