"""What a run is called beside its base, and the score that runs are ranked by."""

from __future__ import annotations

import json

import pytest

from latentwire.errors import UserError
from latentwire.evaluation.metrics import bootstrap_ci
from latentwire.experiments.history import History, better, line_of, score
from latentwire.experiments.settings import RankConfig
from latentwire.experiments.verdicts import verdicts, worst
from latentwire.training.config import WatchConfig
from latentwire.training.watch import CollapseWatch, still_seen


def row(receiver: str, low: float, high: float, ratio: int = 8, condition: str = "latents") -> dict:
    return {"receiver": receiver, "condition": condition, "ratio": ratio, "bits": 16, "n": 3, "em": 0.1,
            "f1": (low + high) / 2, "f1_ci": [low, high], "nll": 1.0, "first_token": 0.2, "retention": None,
            "bytes": 9.0}  # fmt: skip


def line(*rows: dict, ended: dict | None = None, stopped: str | None = None) -> dict:
    return {"rows": list(rows), "ended": ended or {}, "stopped": stopped}


BASE = line(row("llama", 0.3, 0.4), row("qwen2", 0.3, 0.4))


@pytest.mark.parametrize(
    ("llama", "word"),
    [((0.41, 0.5), "improved"), ((0.35, 0.6), "stable"), ((0.4, 0.5), "stable"), ((0.1, 0.29), "degraded")],
)
def test_a_verdict_is_where_the_intervals_stand(llama, word):
    found = verdicts(line(row("llama", *llama), row("qwen2", 0.3, 0.4)), BASE, "latents")
    assert found == {"llama": word, "qwen2": "stable"} and worst(list(found.values())) == word


def test_collapsed_is_degraded_with_the_watch_still_seeing_it():
    low, seen = (row("llama", 0.0, 0.1), row("qwen2", 0.5, 0.6)), {"llama": ["dominating token"]}
    assert verdicts(line(*low), BASE, "latents") == {"llama": "degraded", "qwen2": "improved"}
    found = verdicts(line(*low, ended=seen), BASE, "latents")
    assert found == {"llama": "collapsed", "qwen2": "improved"} and worst(list(found.values())) == "collapsed"
    # the watch alone is no verdict, and neither is the watch of another receiver
    assert verdicts(line(*BASE["rows"], ended=seen), BASE, "latents")["llama"] == "stable"
    other = line(*low, ended={"qwen2": ["few predictions"]})
    assert verdicts(other, BASE, "latents") == {"llama": "degraded", "qwen2": "improved"}


def test_a_run_that_the_watch_stopped_is_collapsed_and_one_without_a_base_has_no_verdict():
    assert verdicts(line(stopped="step 9: …"), BASE, "latents") == {"llama": "collapsed", "qwen2": "collapsed"}
    assert verdicts(line(row("llama", 0, 1)), line(stopped="step 9: …"), "latents") == {}
    other_ratio = line(row("llama", 0.9, 1.0, ratio=4))
    assert verdicts(other_ratio, BASE, "latents") == {}


def test_what_passed_is_not_still_seen():
    watch = CollapseWatch(WatchConfig(patience=2))
    for step in range(1, 4):
        watch.look(step, "llama", 0.95, " the", 0.5, 2.0)
    assert still_seen(watch.state, 2) == {"llama": ["dominating token"]}
    watch.look(4, "llama", 0.2, " the", 0.5, 2.0)
    assert len(watch.events) == 1 and still_seen(watch.state, 2) == {}


def test_a_score_is_the_mean_of_what_is_ranked_with_an_interval_over_questions(tmp_path):
    said = {"llama": [1.0, 0.0, 0.5], "qwen2": [0.0, 0.0, 1.0]}
    (tmp_path / "eval").mkdir()
    with (tmp_path / "eval" / "predictions.jsonl").open("w") as file:
        for name, scores in said.items():
            for condition in ("latents", "none"):
                for number, f1 in enumerate(scores):
                    key = {"receiver": name, "condition": condition, "ratio": 8, "bits": 16, "id": f"q{number}"}
                    own = f1 if condition == "latents" else 0.9
                    file.write(json.dumps({**key, "prediction": "Oslo", "answers": ["oslo"], "f1": own}) + "\n")
    rows = [row("llama", 0.5, 0.5), row("qwen2", 0.3, 0.3), row("llama", 0.9, 0.9, condition="none")]
    result = {"rows": rows, "seed": 0}
    found = score(result, RankConfig(), tmp_path)
    assert found["value"] == pytest.approx(0.4)
    assert found["interval"] == pytest.approx(bootstrap_ci([0.5, 0.0, 0.75]), abs=1e-4)
    one = score(result, RankConfig(receiver="llama"), tmp_path)
    assert one["value"] == 0.5 and one["interval"] == [0.5, 0.5]
    assert score(result, RankConfig(metric="em"), tmp_path)["interval"] == [1.0, 1.0]
    assert score(result, RankConfig(metric="nll"), tmp_path) == {"metric": "nll", "value": 1.0, "interval": None}
    with pytest.raises(UserError, match=r"receiver gpt2.*measured were: llama 8x 16 bits.*nothing is trained twice"):
        score(result, RankConfig(receiver="gpt2"), tmp_path)
    assert score({"rows": []}, RankConfig(), tmp_path)["value"] is None


def test_the_best_come_first_and_those_without_a_score_last():
    lines = [{"score": {"metric": "f1", "value": value}} for value in (0.1, None, 0.3)]
    assert [one["score"]["value"] for one in sorted(lines, key=better)] == [0.3, 0.1, None]
    lines = [{"score": {"metric": "nll", "value": value}} for value in (3.0, None, 1.0)]
    assert [one["score"]["value"] for one in sorted(lines, key=better)] == [1.0, 3.0, None]


def test_a_history_holds_a_run_once_and_survives_a_line_that_was_cut_off(tmp_path):
    events = [{"step": 2, "event": "few predictions", "receiver": "llama", "words": "…", "share": 0.1}]
    result = {"hash": "abc", "overrides": {"rate": 1}, "evaluation": "e", "rows": [row("llama", 0.2, 0.3)], "steps": 2,
              "seconds": {"train": 1.0, "evaluate": 0.5}, "parameters": {}, "ended": {}, "stopped": None,
              "events": events, "seed": 0, "versions": {"torch": "2"}}  # fmt: skip
    made, kept = line_of(result, RankConfig(), tmp_path), History(tmp_path)
    assert made["events"] == [{"step": 2, "event": "few predictions", "receiver": "llama"}]
    kept.add(made)
    kept.add(made)
    with kept.path.open("a") as file:
        file.write('{"hash": "cut o')
    kept.add({**made, "evaluation": "other"})
    assert [(one["hash"], one["evaluation"]) for one in kept.lines()] == [("abc", "e"), ("abc", "other")]
    assert kept.lines()[0]["score"] == {"metric": "f1", "value": 0.25, "interval": [0.2, 0.3]}
