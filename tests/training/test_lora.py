"""LoRA in a whole training run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from latentwire.config import load
from latentwire.errors import UserError
from latentwire.training.config import TrainConfig
from latentwire.training.run import train
from latentwire.training.setup import prepare
from latentwire.training.trainer import Trainer
from latentwire.wire import Wire
from training.conftest import made_ready, written

pytest.importorskip("peft", reason="the extra `lora` is not installed")
LORA = "wire.links.llama.lora={layers: 2, rank: 2, rate: 0.25}"


@pytest.fixture(scope="module")
def first(tmp_path_factory, tiny_tree):
    """A short run with LoRA on one of two links."""
    out = tmp_path_factory.mktemp("lora")
    return train(written(tiny_tree, out), [LORA, "steps=2", "eval_every=2"], out=out / "run")


def test_it_has_a_rate_of_its_own_beside_links_without(tiny_config):
    config, accelerator = load(tiny_config, TrainConfig, [LORA]), Accelerator(cpu=True)
    trainer = Trainer(config, prepare(config, None, accelerator), accelerator)
    own = {id(p) for p in trainer.run.wire.links["llama"].lora.parameters()}
    groups = [group for group in trainer.optimizer.param_groups if own & {id(p) for p in group["params"]}]
    assert [group["peak"] for group in groups] == [0.25 * config.rate]
    assert {id(p) for p in groups[0]["params"]} == own


def test_a_run_learns_it_and_saves_it_with_its_link(first):
    state = load_file(first / "model.safetensors")
    added = {key: value for key, value in state.items() if ".lora." in key}
    assert all(key.startswith("links.llama.") for key in added)
    moved = [value.abs().sum() > 0 for key, value in added.items() if ".b." in key]
    assert len(moved) == 4 and all(moved)  # two targets in each of two layers
    assert Wire.from_pretrained(first).links["llama"].config.lora.rank == 2


def test_a_trained_wire_with_it_is_trained_on(tiny_config, first, tmp_path):
    more = train(tiny_config, [f"start={first}", "steps=1", "eval_every=0"], out=tmp_path / "more")
    one, other = (load_file(where / "model.safetensors") for where in (first, more))
    assert one.keys() == other.keys()
    assert all(not one[key].equal(other[key]) for key in one if ".lora." in key)


def test_a_link_starts_from_one_of_the_same_make_alone(tiny_config, first, tmp_path):
    quick = [f"wire.links.llama.start={first}", "steps=1", "eval_every=0"]
    frozen = train(tiny_config, [LORA, "wire.links.llama.freeze=true", *quick], out=tmp_path / "frozen")
    before, after = (load_file(where / "model.safetensors") for where in (first, frozen))
    kept = [key for key in before if key.startswith("links.llama.") and "fertility" not in key]
    assert all(before[key].equal(after[key]) for key in kept)
    with pytest.raises(UserError, match=r"links\.llama\.lora is not that of"):
        train(tiny_config, quick, out=tmp_path / "without")


def test_a_stage_may_train_it_alone_and_diagnostics_tell_its_gradient(tiny_config, tmp_path):
    alone = "stages=[{until: 0.5, learn: [links.llama.adapter]}, {until: 1.0, questions: 1.0, learn: [links.*.lora]}]"
    train(tiny_config, [LORA, alone, "steps=4", "save_every=1", "diagnostics.every=1"], out=tmp_path)
    begin, end = (load_file(path / "wire.safetensors") for path in sorted((tmp_path / "checkpoints").glob("step-*")))
    moved = {key for key in begin if not begin[key].equal(end[key])}
    assert moved and all(key.startswith("links.llama.lora.") for key in moved)
    lines = [json.loads(line) for line in (tmp_path / "diagnostics.jsonl").read_text().splitlines()]
    features = [line["gradients"]["features"] for line in lines]
    assert set(features[0]) == {"links.llama.adapter"} and set(features[-1]) == {"links.llama.lora"}
    assert features[-1]["links.llama.lora"] > 0


@torch.no_grad()
@pytest.mark.parametrize("beside", [False, True])
def test_it_stays_on_in_a_step_with_some_passages_as_text(tiny_tree, beside):
    run = made_ready(tiny_tree, LORA)
    for parameter in run.wire.links["llama"].lora.parameters():
        parameter.normal_()
    batch = run.stores["questions"].draw(0, 0, torch.Generator())
    work = run.step.cut(batch, "questions", 0.0, torch.Generator().manual_seed(0))
    read = {name: {**given, "beside" if beside else "instead": torch.zeros(4, dtype=torch.bool)}
            for name, given in work.read.items()}  # fmt: skip
    plain, none_mixed = (run.step.losses(one, 4)[1]["llama/answer"] for one in (work, replace(work, read=read)))
    assert float(none_mixed) == pytest.approx(float(plain), abs=1e-4)
