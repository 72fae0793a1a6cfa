"""What a run will take is said before anything is loaded."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from latentwire.adapters.mlp import MLPAdapterConfig
from latentwire.cli import main
from latentwire.config import load
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.experiments.plan import plan
from latentwire.experiments.skeleton import skeleton
from latentwire.injections.kv_column import KVColumnConfig
from latentwire.link import LinkConfig
from latentwire.objectives.kl import KLConfig
from latentwire.objectives.label_smoothing import LabelSmoothingConfig
from latentwire.receivers.load import LoadConfig
from latentwire.saved import WireConfig
from latentwire.training.config import TrainConfig
from latentwire.training.throughput import taught
from latentwire.wire import Wire

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"


def config(name: str, *overrides: str) -> TrainConfig:
    return load(CONFIGS / name, TrainConfig, overrides)


def test_the_shipped_wire_is_counted_as_it_is(monkeypatch):
    whole = Wire.from_pretrained("sandbox")
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", None)  # no weights are read
    found = plan(config("sandbox/join.yaml"))["parameters"]
    for name, module in {"encoder": whole.encoder, **{f"link {n}": whole.links[n] for n in whole.receivers}}.items():
        learns = name == "link gpt2"
        size = sum(p.numel() for p in module.parameters())
        assert found[name]["all"] == size and found[name]["learn"] == (size if learns else 0)
    wire, names = skeleton(config("sandbox/wire.yaml"))
    assert names == ["llama", "qwen2"] and {p.device.type for p in wire.parameters()} == {"meta"}


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """Directories that hold nothing but the config of a large model."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    found = importlib.import_module("shapes")
    for name in ("llama8b", "qwen7b", "llama1b", "qwen0.5b"):
        found.config_of(name).save_pretrained(tmp_path / name)
    return [
        f"wire.links.llama.receiver={tmp_path / 'llama8b'}", f"wire.links.qwen2.receiver={tmp_path / 'qwen7b'}",
        f"wire.encoder.init={tmp_path / 'llama1b'}", f"wire.encoder.lexicons=[{tmp_path / 'qwen0.5b'}]",
    ]  # fmt: skip


def test_large_models_are_planned_from_their_configs_alone(shapes):
    two = plan(config("llama8b_qwen7b_squad.yaml", *shapes, "wire.links.llama.load.device_map=cuda:1"))
    assert round(two["parameters"]["receiver llama"]["all"] / 1e9, 2) == 8.03
    assert 1.2e9 < two["parameters"]["encoder"]["learn"] < 1.4e9 and two["parameters"]["receiver qwen2"]["learn"] == 0
    memory = two["memory_gib"]
    assert list(memory) == ["cuda:0", "cuda:1"] and two["step"]["gpus"] == 2
    assert memory["cuda:1"]["llama: frozen weights"] == pytest.approx(14.96, abs=0.01)
    # both fit on cards of 80 GB, and so do both receivers on one
    assert all(parts["at most"] < 74 for parts in memory.values())
    one = plan(config("llama8b_qwen7b_squad.yaml", *shapes))
    assert memory["cuda:0"]["at most"] < one["memory_gib"]["cuda:0"]["at most"] < 74
    assert one["step"]["seconds"] == pytest.approx(2 * two["step"]["seconds"], rel=1e-3)
    # what is not kept, is made again
    more = plan(config("llama8b_qwen7b_squad.yaml", *shapes, "recompute=[]", "head_tokens=0"))
    assert more["memory_gib"]["cuda:0"]["at most"] > one["memory_gib"]["cuda:0"]["at most"] + 10
    quarter = plan(config("llama8b_qwen7b_squad.yaml", *shapes, "wire.links.llama.load.load_in_4bit=true"))
    assert quarter["memory_gib"]["cuda:0"]["llama: frozen weights"] < 5
    assert [row["bytes"][8] for row in one["packets"]] == sorted(
        (row["bytes"][8] for row in one["packets"]), reverse=True
    )


def test_an_encoder_that_is_split_takes_its_share_of_a_device(shapes):
    whole = plan(config("llama8b_qwen7b_squad.yaml", *shapes, "optimizer=adamw"))
    alone = plan(config("llama8b_qwen7b_squad.yaml", *shapes, "optimizer=adamw", "shard=true"))
    assert alone == whole  # one process has all of it
    split = plan(config("llama8b_qwen7b_squad.yaml", *shapes, "optimizer=adamw", "shard=true"), processes=4)
    own, all_of_it = split["memory_gib"]["cuda:0"], whole["memory_gib"]["cuda:0"]
    encoder = 4 * whole["parameters"]["encoder"]["all"] / 2**30
    for part, times in {"encoder and links, float32": 1, "their gradients": 1, "their moments": 2}.items():
        assert all_of_it[part] - own[part] == pytest.approx(0.75 * times * encoder, rel=0.01)
    assert own["the whole encoder, while the first process evaluates"] == pytest.approx(encoder, rel=0.01)
    # tables of words and the layers at work, twice
    assert 2 < own["parts of the encoder that are whole at a time"] < encoder
    assert own["at most"] < all_of_it["at most"] - 8


def test_what_the_docs_say_of_an_encoder_that_fits_no_device(shapes, tmp_path):
    more = *shapes, f"wire.encoder.init={tmp_path / 'llama8b'}", "optimizer=adamw", "shard=true"
    said = [plan(config("llama8b_qwen7b_squad.yaml", *more), processes=n)["memory_gib"]["cuda:0"] for n in (1, 8)]
    one, eight = (round(parts["at most"]) for parts in said)
    assert f"takes {one} GiB on one device, and {eight} on each of eight" in (ROOT / "docs" / "scale.md").read_text()


@pytest.mark.parametrize("name", ["scale-step-h100", "scale-step-recompute-h100"])
def test_memory_is_near_what_was_measured(shapes, tmp_path, name):
    """The step of ``benchmarks/scale_step.py`` on two GPUs: peaks of what torch allocated, CUDA's own not counted."""
    found = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    script, wanted = importlib.import_module("scale_step"), importlib.import_module("shapes").WIDTHS
    assert "llama1b" not in wanted  # latents and slots of the usual width
    config = script.config_of(64, found["recompute"], found["head_tokens"], "never", found["optimizer"])
    links = {
        reader: LinkConfig(str(tmp_path / reader), MLPAdapterConfig((1,), layers=2, multiple=0.0),
                           KVColumnConfig(1024, 0.5), load=LoadConfig(device_map=place))
        for reader, place in (("llama8b", "cuda:1"), ("qwen7b", ""))
    }  # fmt: skip
    encoder = LMEncoderConfig(init=str(tmp_path / "llama1b"), d_z=1024, ratios=(4,), window=256)
    objectives = {**config.objectives, "kl": KLConfig(top=32, cache="kept")}
    whole = replace(config, wire=WireConfig(encoder, links), objectives=objectives)
    said = [parts["at most"] - 1 for parts in plan(whole)["memory_gib"].values()]
    assert said == pytest.approx(found["sides"]["ours"]["peak_gib"], rel=0.06)


def test_an_encoder_from_scratch_is_planned_and_words_are_readable(capsys):
    assert main(["plan", str(CONFIGS / "history" / "constant.yaml"), "steps=1000", "minutes=0"]) == 0
    said = capsys.readouterr().out
    assert "receiver llama │ 20.8 M" in said and "at most" in said and "TFLOP" in said and "1 H100 at 30%" in said
    assert main(["plan", str(CONFIGS / "sandbox" / "wire.yaml"), "--json", "--gpu", "4090", "--share", "0.2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["step"]["gpu"] == "4090" and found["packets"][0]["positions_saved"] == [192, 128, 0]


def test_what_cannot_be_planned_is_said(tmp_path):
    with pytest.raises(UserError, match="the peak of 'B300' is not known; known are: H100"):
        plan(config("sandbox/wire.yaml"), "B300")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"the config.json of .*empty is not to be had"):
        plan(config("sandbox/wire.yaml", f"wire.links.llama.receiver={tmp_path / 'empty'}"))
    with pytest.raises(UserError, match="an encoder of type 'memory' cannot be counted without its weights"):
        plan(config("sandbox/wire.yaml", "wire.encoder={type: memory, init: 'sandbox:llama'}"))


def test_a_kept_teacher_reads_nothing_in_a_step():
    live, kept = KLConfig(taught=0.5).build(), KLConfig(taught=0.5, cache="somewhere").build()
    assert [taught([live], source) for source in ("text", "questions")] == [0.5, 0.5]
    assert [taught([kept], source) for source in ("text", "questions")] == [0.5, 0.0]
    assert taught([LabelSmoothingConfig().build()], "text") == 0.0
