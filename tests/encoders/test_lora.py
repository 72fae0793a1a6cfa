"""What of the LM learns by LoRA, and below frozen layers; and that the rest stays as it was."""

from __future__ import annotations

import shutil

import pytest
import torch

from conftest import FAMILIES, WORDS
from contracts.matrix import config
from latentwire.encoders import EncoderConfig
from latentwire.encoders.lora import LowRank
from latentwire.errors import UserError
from latentwire.link import LinkConfig
from latentwire.wire import Wire, WireConfig


def build(tiny_readers, **options):
    torch.manual_seed(0)
    return config(EncoderConfig, "lm", tiny_readers, **options).build()


def states(encoder):
    source = encoder.prepare([WORDS[:120]])
    with torch.no_grad():
        return encoder.lm(input_ids=torch.from_numpy(source.arrays["ids"]).long()).last_hidden_state


def trained(encoder, steps=3):
    source = encoder.prepare([WORDS[:120], WORDS[120:200]])
    optimizer = torch.optim.Adam([p for p in encoder.parameters() if p.requires_grad], lr=0.01)
    aim = torch.randn(16, generator=torch.Generator().manual_seed(3))
    for _ in range(steps):
        optimizer.zero_grad()
        (-(encoder.encode(source, 4).z_BMD * aim).mean()).backward()
        optimizer.step()
    return encoder


@pytest.mark.parametrize("family", FAMILIES)
def test_untrained_lora_is_the_model_itself_and_training_moves_nothing_else(tiny_readers, family):
    plain, encoder = build(tiny_readers, init=family), build(tiny_readers, init=family, lora=2)
    torch.testing.assert_close(states(encoder), states(plain))
    before = {name: p.clone() for name, p in encoder.lm.named_parameters()}
    learning = {name for name, p in encoder.lm.named_parameters() if p.requires_grad}
    assert learning and all(".up." in name or ".down." in name for name in learning)
    trained(encoder)
    moved = {name for name, p in encoder.lm.named_parameters() if not torch.equal(p, before[name])}
    assert moved == learning
    assert not torch.allclose(states(encoder), states(plain), atol=1e-4)


def test_a_change_is_the_product_of_its_two_maps_times_alpha_over_rank(tiny_readers):
    encoder = trained(build(tiny_readers, init="gpt2", lora=2, lora_alpha=6.0, lora_on=["c_attn"]))
    changed = [m for m in encoder.lm.modules() if isinstance(m, LowRank)]
    assert len(changed) == 2, "one in each of two layers"
    x = torch.randn(3, 32)
    # GPT-2 keeps its matrices as [in, out]
    whole = changed[0].base.weight + 3.0 * (changed[0].up.weight @ changed[0].down.weight).T
    torch.testing.assert_close(changed[0](x), x @ whole + changed[0].base.bias, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"lora": 2}])
def test_the_first_layers_and_the_words_below_them_stay(tiny_readers, options):
    encoder = build(tiny_readers, init="gpt2", frozen_layers=1, **options)
    before = {name: p.clone() for name, p in encoder.lm.named_parameters()}
    trained(encoder)
    moved = {name for name, p in encoder.lm.named_parameters() if not torch.equal(p, before[name])}
    assert moved and not {name for name in moved if name.startswith(("h.0.", "wte", "wpe"))}
    assert any(name.startswith("h.1.") for name in moved)


def test_a_wire_with_lora_is_saved_whole_and_loaded_strictly(tiny_readers, tmp_path):
    start = shutil.copytree(tiny_readers["llama"], tmp_path / "start")
    encoder = config(EncoderConfig, "lm", tiny_readers, init=str(start), lora=2, frozen_layers=1)
    wire = Wire.create(WireConfig(encoder, {"qwen2": LinkConfig(str(tiny_readers["qwen2"]))}), [WORDS])
    trained(wire.encoder)
    wire.eval().save_pretrained(tmp_path / "wire")
    shutil.rmtree(start)  # what the encoder started from is in the wire
    again = Wire.from_pretrained(tmp_path / "wire")
    assert again.encode([WORDS])[0].to_bytes() == wire.encode([WORDS])[0].to_bytes()
    learning = [name for name, p in again.encoder.lm.named_parameters() if p.requires_grad]
    assert learning == [name for name, p in wire.encoder.lm.named_parameters() if p.requires_grad]
    file = tmp_path / "wire" / "config.json"
    file.write_text(file.read_text().replace('"lora": 2', '"lora": 0'))
    with pytest.raises(UserError, match="do not fit its config"):
        Wire.from_pretrained(tmp_path / "wire")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora": 2, "lora_on": ["query"]}, "names 'query'; the linear maps here are: down_proj, gate_proj"),
        ({"lora": 99}, "a rank from 1 to 16"),
        ({"lora": 2, "frozen_layers": 2}, "no layer to change"),
        ({"frozen_layers": 3}, "is 3, the LM has 2 layers"),
        ({"frozen_layers": -1}, "is -1"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny_readers, options, message):
    with pytest.raises(UserError, match=message):
        build(tiny_readers, **options)
