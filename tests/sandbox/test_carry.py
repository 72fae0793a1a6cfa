"""A link that is carried over to a newer encoder."""

from __future__ import annotations

import copy

import pytest
import torch

from conftest import WORDS
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.link import LinkConfig
from latentwire.receivers.lora import LoRAConfig
from latentwire.sandbox import carry as module
from latentwire.sandbox.carry import carry
from latentwire.wire import Wire, WireConfig

TEXTS = [WORDS[i : i + 150] for i in range(0, 90, 3)]


def wire(readers, name, lora=None, **encoder) -> Wire:
    torch.manual_seed(0)
    config = LMEncoderConfig(**{"d_z": 16, "ratios": (4, 8), "window": 64, "init": str(readers["llama"]), **encoder})
    return Wire.create(WireConfig(config, {name: LinkConfig(receiver=str(readers[name]), lora=lora)}), TEXTS).eval()


def turned(old: Wire, readers) -> Wire:
    """The same encoder with its latents in another order."""
    new = wire(readers, "llama")
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    state = copy.deepcopy(old.encoder.state_dict())
    for name in ("pool", "joins.8"):
        state[f"{name}.weight"], state[f"{name}.bias"] = state[f"{name}.weight"][order], state[f"{name}.bias"][order]
    state["joins.8.weight"] = state["joins.8.weight"].reshape(16, 2, 16)[:, :, order].reshape(16, 32)
    new.encoder.load_state_dict(state)
    return new


def test_a_link_reads_the_same_in_turned_coordinates(tiny_readers, monkeypatch):
    monkeypatch.setattr(module, "RIDGE", 1e-4)
    old = wire(tiny_readers, "gpt2")
    new = turned(old, tiny_readers)
    before = copy.deepcopy(new.encoder.state_dict())
    assert carry(old, new, "gpt2", TEXTS) > 0.999
    assert new.receivers == ["llama", "gpt2"]
    assert all(torch.equal(before[key], value) for key, value in new.encoder.state_dict().items())
    for ratio in (4, 8):
        expected = old.prefix("gpt2", old.encode_latents(TEXTS[:2], ratio))
        got = new.prefix("gpt2", new.encode_latents(TEXTS[:2], ratio))
        for (k, v), (k_old, v_old) in zip(got.kv, expected.kv, strict=True):
            assert (v - v_old).abs().mean() < 0.02 * v_old.abs().mean()
            assert (k - k_old).abs().mean() < 0.02 * k_old.abs().mean()


def test_encoders_without_a_common_ratio_are_refused(tiny_readers):
    with pytest.raises(UserError, match="no ratio in common"):
        carry(wire(tiny_readers, "gpt2"), wire(tiny_readers, "llama", ratios=(3,)), "gpt2", TEXTS)


@torch.no_grad()
def test_lora_of_a_link_is_carried_over_with_it(tiny_readers, monkeypatch):
    pytest.importorskip("peft", reason="the extra `lora` is not installed")
    monkeypatch.setattr(module, "RIDGE", 1e-4)
    old = wire(tiny_readers, "qwen2", lora=LoRAConfig(layers=1, rank=2))
    for parameter in old.links["qwen2"].lora.parameters():
        parameter.normal_(generator=torch.Generator().manual_seed(1))
    new = wire(tiny_readers, "llama")
    carry(old, new, "qwen2", TEXTS)
    one, other = (w.receiver("qwen2").generate(w.encode([WORDS], ratio=4)[0], "Who?") for w in (old, new))
    assert one == other
    switched = {id(p) for layer in new.get_receiver("qwen2").lora.layers for p in layer.parameters()}
    assert {id(p) for p in new.links["qwen2"].lora.parameters()} <= switched
