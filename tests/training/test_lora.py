"""LoRA in a whole training run."""

from __future__ import annotations

import pytest
from accelerate import Accelerator
from safetensors.torch import load_file

from latentwire.config import load
from latentwire.errors import UserError
from latentwire.training.config import TrainConfig
from latentwire.training.loop import Loop
from latentwire.training.run import train
from latentwire.training.setup import prepare
from latentwire.wire import Wire

pytest.importorskip("peft", reason="the extra `lora` is not installed")
LORA = "wire.links.llama.lora={layers: 2, rank: 2, rate: 0.25}"


@pytest.fixture(scope="module")
def first(tmp_path_factory, make_config):
    """A short run with LoRA on one of two links."""
    out = tmp_path_factory.mktemp("lora")
    return train(make_config(out), [LORA, "steps=2", "eval_every=2"], out=out / "run")


def test_it_has_a_rate_of_its_own_beside_links_without(tiny_config, tmp_path):
    config, accelerator = load(tiny_config, TrainConfig, [LORA]), Accelerator(cpu=True)
    loop = Loop(config, prepare(config, None, accelerator), accelerator, tmp_path)
    own = {id(p) for p in loop.run.wire.links["llama"].lora.parameters()}
    groups = [group for group in loop.optimizer.param_groups if own & {id(p) for p in group["params"]}]
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
