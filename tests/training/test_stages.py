"""Stages of one run: what learns in each, what each leaves, and a run that is killed in one of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from latentwire.config import decode, load, read_yaml
from latentwire.errors import UserError
from latentwire.training.check import check
from latentwire.training.config import Draw, Stage, TrainConfig
from latentwire.training.loop import Loop
from latentwire.training.run import train
from latentwire.training.stages import matches
from latentwire.training.trainer import Trainer

STAGES = [
    {"name": "A", "until": 0.5, "questions": 0.5, "learn": ["encoder", "links.*.adapter"]},
    {"name": "B", "until": 1.0, "questions": 0.5, "learn": ["links.*.injection"], "rate": 0.5,
     "weights": {"continuation": 0.25}, "draws": [{"ratio": 8}]},
    {"name": "C", "until": 1.0, "score": 3},
]  # fmt: skip


@pytest.fixture
def staged(tiny_config) -> Path:
    """The tiny config in three stages, with an encoder that drops latents by luck."""
    tree = yaml.safe_load(tiny_config.read_text())
    inner = tree["wire"]["encoder"]
    shared = {key: inner.pop(key) for key in ("d_z", "ratios", "window")}
    tree["wire"]["encoder"] = {"type": "refined", "inner": inner, "keep": 0.7, "layers": 0, **shared}
    tree["corpus"]["windows"] = 24
    tree |= {"stages": STAGES, "steps": 8, "eval_every": 0, "save_every": 2}
    tiny_config.write_text(yaml.safe_dump(tree))
    return tiny_config


class KilledError(Exception):
    pass


def test_stages_train_what_they_name_and_a_run_killed_in_one_ends_as_if_it_had_not_been(staged, tmp_path, monkeypatch):
    first, begin = [], Trainer.begin

    def begun(self, stage):
        first.append({name: value.clone() for name, value in self.run.wire.state_dict().items()})
        begin(self, stage)

    monkeypatch.setattr(Trainer, "begin", begun)
    whole = load_file(train(staged, out=tmp_path / "whole") / "model.safetensors")
    a, b, c = (load_file(tmp_path / "whole" / "stages" / name / "wire" / "model.safetensors") for name in "ABC")

    def moved(one, other):
        return {".".join(name.split(".")[:3:2]) if "links" in name else "encoder"
                for name in one if not torch.equal(one[name], other[name])}  # fmt: skip

    assert moved(first[0], a) == {"encoder", "links.adapter"}
    assert moved(a, b) == {"links.injection"}
    assert not moved(b, c) and not moved(c, whole)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").open()]
    assert {row["draw"] for row in rows if row["step"] > 5 and row["source"] != "dev"} == {"8x"}
    assert (tmp_path / "whole" / "stages" / "C" / "dev" / "results.json").is_file()

    def killed(self):
        if self.progress.step == 7:
            raise KilledError
        return advance(self)

    advance = Loop.advance
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Loop, "advance", killed)
        train(staged, out=tmp_path / "broken")
    assert not (tmp_path / "broken" / "stages" / "B").exists()
    again = load_file(train(staged, out=tmp_path / "broken") / "model.safetensors")
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []
    # lines that the killed run wrote behind its last checkpoint do not stand there twice
    steps = [json.loads(line)["step"] for line in (tmp_path / "broken" / "metrics.jsonl").open()]
    assert steps == sorted(steps) and steps.count(7) == 1
    left = load_file(tmp_path / "broken" / "stages" / "A" / "wire" / "model.safetensors")
    assert all(torch.equal(left[name], a[name]) for name in a)
    # a finished run that is called again changes nothing
    train(staged, out=tmp_path / "broken")
    assert steps == [json.loads(line)["step"] for line in (tmp_path / "broken" / "metrics.jsonl").open()]


def test_what_stands_still_keeps_its_moments_and_goes_on(tiny_config, tmp_path, monkeypatch):
    kept, go = [], Loop.go

    def gone(self, resume):
        go(self, resume)
        state, names = self.trainer.optimizer.state, self.trainer.learning.named
        kept.append({name: int(state[p]["step"]) for name, p in names.items() if p in state})

    monkeypatch.setattr(Loop, "go", gone)
    stages = "stages=[{until: 0.4, learn: [encoder, links.llama]}, {until: 0.7, learn: [links.gemma]}, {until: 1.0}]"
    train(tiny_config, [stages, "steps=8", "eval_every=0", "save_every=0", "corpus.windows=24"], out=tmp_path / "run")
    counts = {word: {n for name, n in kept[0].items() if matches(word, name)} for word in ("encoder", "links.gemma")}
    # steps 0..3, then 4..5, then 6..7
    assert max(counts["encoder"]) == 6 and max(counts["links.gemma"]) == 4


def test_a_run_of_one_receiver_a_step_trains_them_in_turn(tiny_config, tmp_path):
    train(tiny_config, ["receivers=sampled", "steps=8", "eval_every=8", "corpus.windows=24"], out=tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    names = [{key.split("/")[0] for key in row if "/" in key} for row in rows if row["source"] != "dev"]
    assert all(len(found) == 1 for found in names)
    assert set.union(*names) == {"llama", "gemma"}
    # all of them are evaluated
    assert {"llama/answer@4x", "gemma/answer@4x"} <= set(rows[-1])


def test_the_stages_in_the_documentation_are_a_config():
    root = Path(__file__).resolve().parents[2]
    blocks = re.findall(r"```yaml\n(.*?)```", (root / "docs" / "training.md").read_text(), re.DOTALL)
    (shown,) = [block for block in blocks if block.startswith("stages:")]
    tree = read_yaml(root / "configs" / "sandbox" / "wire.yaml") | yaml.safe_load(shown)
    config = decode(TrainConfig, tree)
    check(config)
    assert [stage.name for stage in config.stages] == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stages": [Stage(0.9), Stage(0.5), Stage(1.0)]}, "follow one another"),
        ({"stages": [Stage(0.5, name="A"), Stage(1.0, name="A")]}, "same name"),
        ({"stages": [Stage(1.0, score=4)]}, "a score but no name"),
        ({"stages": [Stage(1.0, weights={"kll": 1.0})]}, "names 'kll'"),
        ({"receivers": "some"}, "all or sampled"),
        ({"stages": [Stage(1.0, receivers="some")]}, "receivers is one of all, sampled, none"),
        ({"stages": [Stage(1.0, receivers="none", learn=["codes"])]}, "all its draws need codes"),
        (
            {"start": "w", "stages": [Stage(1.0, receivers="none", learn=["encoder"])], "draws": [Draw(codes=2)]},
            "codes alone can learn",
        ),
        ({"stages": [Stage(1.0, receivers="sampled")], "lean": {"llama": 2.0}}, "only one in each"),
        ({"on_collapse": "cry"}, "warn, stop, halve"),
        ({"lean": {"llama": 2.0}, "receivers": "sampled"}, "only one in each"),
        ({"lean": {"llama": 0.0}}, "weights above 0"),
        ({"accumulate": 0}, "accumulate is a number from 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(tiny_config, change, said):
    config = load(tiny_config, TrainConfig)
    for name, value in change.items():
        setattr(config, name, value)
    with pytest.raises(UserError, match=said):
        check(config)


def test_a_name_of_nothing_that_learns_is_refused(tiny_config, tmp_path):
    with pytest.raises(UserError, match=r"names 'links.lama'.*links\.llama\.adapter"):
        train(tiny_config, ["stages=[{until: 1.0, learn: [links.lama]}]", "corpus.windows=24"], out=tmp_path / "run")


def test_lean_names_a_receiver_that_learns(tiny_config, tmp_path):
    with pytest.raises(UserError, match="lean names 'qwen2'; the links that learn are:"):
        train(tiny_config, ["lean={qwen2: 2.0}", "corpus.windows=24"], out=tmp_path / "run")


def test_kept_text_is_taken_again_whatever_is_asked(tiny_config, tmp_path, monkeypatch):
    more = ["steps=1", "eval_every=0", "corpus.windows=24", f"corpus.cache={tmp_path / 'cache'}"]
    train(tiny_config, more, out=tmp_path / "one")

    def refuse(*given):
        raise AssertionError("made again")

    monkeypatch.setattr("latentwire.training.setup.text_store", refuse)
    train(tiny_config, [*more, "corpus.asked=70", "corpus.contexts=3"], out=tmp_path / "two")
    with pytest.raises(AssertionError, match="made again"):
        train(tiny_config, [*more, "corpus.windows=20"], out=tmp_path / "three")


def test_starting_over_forgets_the_checkpoints_of_the_run_before(tiny_config, tmp_path):
    more = ["eval_every=0", "save_every=1", "corpus.windows=24", "links=[llama]"]
    train(tiny_config, ["steps=4", *more, "keep=3"], out=tmp_path / "run")
    assert [p.name[-1] for p in sorted((tmp_path / "run" / "checkpoints").iterdir())] == ["2", "3", "4"]
    train(tiny_config, ["steps=2", *more], out=tmp_path / "run", resume=False)
    assert [p.name[-1] for p in sorted((tmp_path / "run" / "checkpoints").iterdir())] == ["1", "2"]
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").open()][:2] == [1, 2]
