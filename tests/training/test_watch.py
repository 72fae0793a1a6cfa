"""The collapse watch: what it sees, what it says, what it does."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from latentwire.errors import UserError
from latentwire.training.config import WatchConfig
from latentwire.training.loop import Loop
from latentwire.training.run import train
from latentwire.training.step import Step
from latentwire.training.watch import CollapseWatch


def looks(watch, rows, first=1):
    """Events of looks at ``(share, variety, loss)``, one a step."""
    return [
        event
        for step, (share, variety, loss) in enumerate(rows, first)
        for event in watch.look(step, "llama", share, " the", variety, loss)
    ]


HEALTHY = (0.2, 0.8, 2.0)


def test_it_names_a_dominating_token_with_its_text():
    events = looks(CollapseWatch(WatchConfig(patience=3)), [HEALTHY, *[(0.95, 0.5, 2.0)] * 5, HEALTHY])
    assert [(event["step"], event["event"]) for event in events] == [(4, "dominating token")]
    assert "95% of llama's first answer tokens" in events[0]["words"] and "' the'" in events[0]["words"]


def test_it_names_few_predictions_which_no_single_token_dominates():
    events = looks(CollapseWatch(WatchConfig(patience=2)), [(0.5, 0.05, 2.0)] * 3)
    assert [(event["step"], event["event"]) for event in events] == [(2, "few predictions")]


def test_it_names_a_loss_that_goes_up_and_not_one_that_wavers():
    def of(losses):
        return looks(CollapseWatch(WatchConfig(patience=2, rise=0.5)), [(0.2, 0.8, loss) for loss in losses])

    assert of([3.0, 2.0, 3.0, 2.0, 2.5, 1.9, 3.1]) == []
    rising = of([2.0] * 5 + [6.0] * 8)
    assert [event["event"] for event in rising] == ["loss going up"]
    assert rising[0]["step"] > 6
    assert of([math.nan] * 9) == []


def test_a_look_in_between_that_is_healthy_starts_the_count_anew_and_early_steps_are_not_looked_at():
    bad = (0.95, 0.5, 2.0)
    assert looks(CollapseWatch(WatchConfig(patience=2)), [bad, HEALTHY, bad, HEALTHY]) == []
    assert looks(CollapseWatch(WatchConfig(patience=2, after=3)), [bad] * 3) == []


def test_what_it_has_counted_survives_a_restart():
    bad, config = (0.95, 0.5, 2.0), WatchConfig(patience=3)
    first = CollapseWatch(config)
    looks(first, [bad] * 2)
    again = CollapseWatch(config, state=json.loads(json.dumps(first.state)))
    assert [event["step"] for event in looks(again, [bad], first=3)] == [3]


@pytest.fixture
def collapsed(monkeypatch):
    """Every step of questions looks collapsed."""
    plain = Step.losses

    def losses(self, *args):
        loss, metrics = plain(self, *args)
        return loss, {k: torch.ones(()) if k.endswith("/distinct") else v for k, v in metrics.items()}

    monkeypatch.setattr(Step, "losses", losses)


MORE = ["steps=4", "eval_every=0", "save_every=1", "watch.patience=2", "stages=[{until: 1.0, questions: 1.0}]",
        "links=[llama]", "corpus.windows=24"]  # fmt: skip


def rows_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").open()]


def test_it_can_stop_a_run_which_then_says_why(tiny_config, tmp_path, collapsed):
    with pytest.raises(UserError, match="100% of llama's first answer tokens are one and the same"):
        train(tiny_config, [*MORE, "on_collapse=stop"], out=tmp_path / "run")
    assert rows_of(tmp_path / "run")[-1]["event"] == "dominating token"
    assert not (tmp_path / "run" / "wire").exists() and list((tmp_path / "run" / "checkpoints").iterdir())


def test_it_can_halve_the_weights_and_a_resumed_run_keeps_them(tiny_config, tmp_path, collapsed, monkeypatch):
    others = ["objectives.first={type: first-token}", "objectives.gist={type: gist-head, width: 8}"]
    more = [*MORE, *others, "on_collapse=halve"]
    seen, plain = [], Step.losses

    def losses(self, work, *args):
        if self.wire.training:
            seen.append(dict(zip(work.active, work.weight_N.tolist(), strict=True)))
        return plain(self, work, *args)

    monkeypatch.setattr(Step, "losses", losses)
    whole = load_file(train(tiny_config, more, out=tmp_path / "whole") / "model.safetensors")
    assert [weights["answer"] for weights in seen] == [1.0, 1.0, 0.5, 0.5]
    # judges are weighted by the rows they judge: halved themselves, they would count a quarter
    assert all(weights[key] == 1.0 for weights in seen for key in ("kl", "first", "gist"))
    halved = [row["halved"] for row in rows_of(tmp_path / "whole") if row["source"] == "event"]
    assert halved == [{"answer": 0.5}, {"answer": 0.25}]

    advance = Loop.advance
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):

        def killed(self):
            if self.progress.step == 3:
                raise InterruptedError
            return advance(self)

        patch.setattr(Loop, "advance", killed)
        train(tiny_config, more, out=tmp_path / "broken")
    seen.clear()
    again = load_file(train(tiny_config, more, out=tmp_path / "broken") / "model.safetensors")
    assert [weights["answer"] for weights in seen] == [0.5]
    assert all(torch.equal(whole[name], again[name]) for name in whole)
