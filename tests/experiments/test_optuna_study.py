"""Searches: trials are counted over all that work on a study, killed ones go on, failed ones say nothing."""

from __future__ import annotations

import json
import sys

import optuna
import pytest

from experiments.conftest import SHORT
from latentwire.errors import UserError
from latentwire.experiments.optuna_study import Search
from latentwire.experiments.sweep import Sweep, sweep
from latentwire.experiments.trial import JOB, RESULT, write

SPACE = {
    "rate": {"low": "1e-4", "high": 0.1, "log": True},
    "asks": {"low": 1, "high": 3},
    "betas": [[0.9, 0.98], [0.8, 0.9]],
}


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """Runs find a score at once, the better the nearer ``rate`` is to 0.01; the names of those that were made."""
    begun: list[str] = []

    def process(self: Sweep, run, place, claim) -> str | None:
        begun.append(run.name)
        folder = self.out / run.name
        write(folder / JOB, {})
        if run.config.asks == 3:
            return "it broke"
        f1 = max(0.0, 1 - abs(run.config.rate - 0.01) * 10)
        row = {"receiver": "llama", "condition": "latents", "ratio": 8, "bits": 16, "n": 3, "em": 0, "f1": f1,
               "f1_ci": [f1, f1], "nll": 1.0, "first_token": 0, "retention": None, "bytes": 1}  # fmt: skip
        stopped = "step 2: the" if run.config.asks == 2 else None
        write(folder / RESULT, {"evaluation": self.settings.evaluate.hash, "rows": [] if stopped else [row], "steps": 2,
                                "seconds": {"train": 1.0, "evaluate": 1.0}, "parameters": {}, "ended": {},
                                "stopped": stopped, "events": [], "seed": 0})  # fmt: skip
        return None

    monkeypatch.setattr(Sweep, "process", process)
    return begun


def test_a_search_finds_keeps_and_counts(swept, made, tmp_path, capsys):
    fixed = {key: value for key, value in SHORT.items() if key not in SPACE}
    path = swept(optuna={"trials": 8, "space": SPACE}, baseline=True, overrides=fixed)
    results = sweep(path, out=tmp_path / "out", workers=2).go()
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'out' / 'study.db'}")
    states = [trial.state.name for trial in study.trials]
    assert len(states) == 8 and len(made) == 9, "the base run is no trial"
    asks = [trial.params["asks"] for trial in study.trials]
    assert [{1: "COMPLETE", 2: "PRUNED", 3: "FAIL"}[n] for n in asks] == states
    assert set(asks) == {1, 2, 3} and len(results["failed"]) == asks.count(3)
    best = next(run for run in results["runs"] if run["overrides"] and run["score"]["value"] is not None)
    assert best["score"]["value"] == study.best_value and best["overrides"]["betas"] in SPACE["betas"]
    assert isinstance(best["overrides"]["rate"], float)
    # all have been made: nothing is done again, and two more are two more
    assert len(sweep(path, out=tmp_path / "out").go()["runs"]) == len(results["runs"]) and len(made) == 9
    sweep(path, ["optuna.trials=10"], out=tmp_path / "out").go()
    assert len(made) == 11
    capsys.readouterr()


def test_a_trial_that_was_killed_is_gone_on_with(swept, made, tmp_path, capsys):
    path = swept(optuna={"trials": 3, "space": {"rate": [0.01, 0.02, 0.03]}})
    killed = sweep(path, out=tmp_path / "out")
    killed.out.mkdir()
    search = Search(killed)
    trial = search.ask()
    run = search.run_of(trial)
    (killed.out / run.name).mkdir()
    write(killed.out / run.name / JOB, {})
    again = sweep(path, out=tmp_path / "out")
    again.go()
    assert made[-1] == run.name or run.name in made
    states = [one.state.name for one in search.study.trials]
    assert states == ["COMPLETE"] * 3 and search.study.trials[0].params == trial.params
    capsys.readouterr()


def test_a_stopped_sweep_leaves_its_trials_to_go_on_with(swept, made, tmp_path, capsys):
    path = swept(optuna={"trials": 1, "space": {"rate": [0.01]}})
    ready = sweep(path, out=tmp_path / "out")
    ready.out.mkdir()
    search = Search(ready)
    ready.stop()
    search.do(None)
    assert [one.state.name for one in search.study.trials] == ["RUNNING"]
    sweep(path, out=tmp_path / "out").go()
    assert [one.state.name for one in search.study.trials] == ["COMPLETE"]
    capsys.readouterr()


def test_a_study_of_another_sweep_is_refused(swept, made, tmp_path, capsys):
    given = {"trials": 1, "space": {"rate": [0.01]}, "study": "mine"}
    sweep(swept(optuna=given), out=tmp_path / "out").go()
    with pytest.raises(UserError, match="the study 'mine' is of another base"):
        sweep(swept(optuna=given), ["evaluate.n=2"], out=tmp_path / "out").go()
    with pytest.raises(UserError, match="optuna cannot use the storage nonsense"):
        sweep(swept(optuna={**given, "storage": "nonsense"}), out=tmp_path / "out").go()
    capsys.readouterr()


@pytest.mark.parametrize(
    "space", [{"rate": {"low": 1}}, {"rate": 3}, {"rate": {"low": 2, "high": 1}}, {"rate": {"low": "a", "high": "b"}}]
)
def test_a_space_that_says_nothing_is_refused(swept, tmp_path, space):
    ready = sweep(swept(optuna={"trials": 1, "space": space}), out=tmp_path / "out")
    with pytest.raises(UserError, match=r"optuna\.space\.rate"):
        ready.go()


def test_without_optuna_the_extra_is_named(swept, tmp_path, monkeypatch):
    ready = sweep(swept(optuna={"trials": 1, "space": {"rate": [1]}}), out=tmp_path / "out")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"latentwire\[sweep\]"):
        ready.go()
    assert json.dumps(ready.results()["runs"]) == "[]"
