"""A sweep's file: what it varies, what its runs are, and what is refused before anything is loaded."""

from __future__ import annotations

import pytest
import yaml

from latentwire.config import config_hash
from latentwire.errors import UserError
from latentwire.experiments.grid import base_tree, plan, shortened, told
from latentwire.experiments.settings import read


def runs(path, *typed):
    settings, rest = read(path, list(typed))
    return plan(settings, base_tree(settings, path.parent, rest))


def test_a_grid_is_every_combination_and_each_run_is_named_by_its_config(swept):
    grid = {"rate": [0.001, 0.01], "wire.links.*.adapter.layers": [1, 2]}
    found = runs(swept(grid=grid))
    assert [run.overrides for run in found] == [
        {"rate": rate, "wire.links.*.adapter.layers": layers} for rate in (0.001, 0.01) for layers in (1, 2)
    ]
    assert all(run.name == config_hash(run.config) for run in found) and len({run.name for run in found}) == 4
    last = found[-1].config
    assert last.rate == 0.01 and last.steps == 2
    assert {link.adapter.layers for link in last.wire.links.values()} == {2}
    assert {link.adapter.layers for link in found[0].config.wire.links.values()} == {1}, "runs share nothing"


def test_one_key_at_a_time_beside_the_base(swept):
    each = {"objectives.kl.weight.value": [1.0, 3.0], "rate": [0.01]}
    found = runs(swept(each=each, baseline=True))
    # a weight of 1 is the base itself
    assert [run.overrides for run in found] == [{}, {"objectives.kl.weight.value": 3.0}, {"rate": 0.01}]
    assert found[1].config.objectives["kl"].weight.value == 3.0 and found[2].config.objectives["kl"].weight.value == 1.0


def test_what_is_typed_is_of_every_run_or_of_the_sweep_itself(swept):
    path = swept(grid={"rate": [0.001, 0.01]})
    assert {run.config.passages for run in runs(path, "passages=3")} == {3}
    settings, rest = read(path, ["passages=3", "evaluate.n=7", "rank.metric=em"])
    assert rest == ["passages=3"] and settings.evaluate.n == 7 and settings.rank.metric == "em"
    with pytest.raises(UserError, match="'rate' is what this sweep varies"):
        runs(path, "rate=1")


def test_a_base_may_stand_in_the_file_itself(swept, tiny_tree):
    path = swept(base=tiny_tree, grid={"seed": [0, 1]})
    assert [run.config.seed for run in runs(path)] == [0, 1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "by none of them"),
        ({"grid": {"rate": [1]}, "each": {"rate": [1]}}, "by grid and each"),
        ({"grid": {"rate": []}}, "grid varies 'rate' over no values"),
        ({"grid": {"rate": 3}}, "`grid`"),
        ({"grid": {"steps": [3]}}, "'steps' stands in grid and in overrides"),
        ({"grid": {"rate": [1], "wire.nobody.*.x": [1]}}, r"nothing in the base stands for its \*"),
        ({"grid": {"encoder_rat": [1]}}, r"the run with encoder_rat=1: .*encoder_rat"),
        ({"grid": {"optimizer": ["adamw", "sgd"]}}, "the run with optimizer=sgd: optimizer is one of"),
        ({"grid": {"rate": [1]}, "base": "nowhere.yaml"}, "there is no config file"),
        ({"grid": {"rate.x": [1]}, "overrides": {"rate": 2}}, "'x' stands below a plain value"),
        ({"grid": {"rate": [1]}, "base": ""}, "a sweep has no base"),
        ({"grid": {"rate": [1]}, "gird": {}}, "gird"),
        ({"grid": {"rate": [1]}, "rank": {"metric": "bleu"}}, "rank.metric is one of f1"),
        ({"grid": {"rate": [1]}, "rank": {"condition": "zero"}}, "'zero' is not measured"),
        ({"grid": {"rate": [1]}, "rank": {"ratio": 4}}, "rank.ratio 4 is not measured"),
        ({"grid": {"rate": [1]}, "rank": {"metric": "retention"}}, "retention compares with text and none"),
        ({"optuna": {"trials": 3}}, "optuna has no space"),
        ({"optuna": {"trials": 0, "space": {"rate": [1]}}}, "optuna.trials is a number from 1"),
    ],
)
def test_what_cannot_work_is_refused_at_once(swept, given, said):
    path = swept(**given)
    with pytest.raises(UserError, match=said):
        runs(path)


def test_keys_are_shown_by_the_end_that_no_other_has():
    keys = ["objectives.kl.weight.value", "objectives.answer.weight.value", "encoder_rate", "rate"]
    short = shortened(keys)
    assert list(short.values()) == ["kl.weight.value", "answer.weight.value", "encoder_rate", "rate"]
    assert told({keys[0]: 2, "rate": 0.1}, short) == "kl.weight.value=2 rate=0.1"
    assert told({}) == "base"


def test_a_file_that_is_no_sweep(tmp_path):
    path = tmp_path / "wire.yaml"
    path.write_text(yaml.safe_dump({"wire": {}, "steps": 3}))
    with pytest.raises(UserError, match="not valid for SweepConfig"):
        read(path, [])
