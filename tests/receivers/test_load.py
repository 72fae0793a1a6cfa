"""How receivers are put into memory: dtype, 4 bits, attention, devices, families that no test knows."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import types

import pytest
import torch
from accelerate import dispatch_model
from transformers import AutoModelForCausalLM, BloomConfig, Cohere2Config, DiffLlamaConfig, PhiConfig, Starcoder2Config

from conftest import WORDS, tiny_tokenizer
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.injections.soft_tokens import SoftTokensConfig
from latentwire.link import LinkConfig
from latentwire.receivers import LoadConfig, Receiver, load_receiver
from latentwire.receivers.decode import generate
from latentwire.types import Prefix
from latentwire.wire import Wire, WireConfig
from receivers.families import SHAPE, model_of

TAIL = [[7, 9, 11]]


def read(receiver: Receiver, rows: int = 1, count: int = 12) -> Prefix:
    ids = torch.randint(5, 290, (rows, count), generator=torch.Generator().manual_seed(0))
    return receiver.read(ids, torch.ones_like(ids, dtype=torch.bool), receiver.head_for(rows))


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "auto"])
def test_dtype_is_as_asked_and_the_model_the_same(tiny_readers, name):
    receiver = load_receiver(tiny_readers["llama"], load=LoadConfig(dtype=name))
    assert receiver.dtype == (torch.float32 if name == "auto" else getattr(torch, name))
    assert all(k.dtype == v.dtype == receiver.dtype for k, v in read(receiver).kv)
    assert generate(receiver, read(receiver), TAIL, 3, 3).ids
    if name == "bfloat16":  # the same for a copy loaded in another precision
        assert receiver.fingerprint() == load_receiver(tiny_readers["llama"]).fingerprint()


def test_what_is_not_there_is_refused_by_its_name(tiny_readers, monkeypatch):
    def load(**given):
        return load_receiver(tiny_readers["llama"], load=LoadConfig(**given))

    with pytest.raises(UserError, match="dtype is one of float32, bfloat16, float16, auto, not 'half'"):
        load(dtype="half")
    with pytest.raises(UserError, match="attn_implementation is one of flash_attention_2, sdpa, eager"):
        load(attn_implementation="fast")
    with pytest.raises(UserError, match="device_map 'gpu' is no device"):
        load(device_map="gpu")
    find = importlib.util.find_spec
    gone = ("bitsandbytes", "flash_attn")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in gone else find(name, *a))
    with pytest.raises(UserError, match=r"needs the package bitsandbytes; install latentwire\[quant\]"):
        load(load_in_4bit=True)
    with pytest.raises(UserError, match="flash_attention_2 needs the package flash-attn"):
        load(attn_implementation="flash_attention_2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: name in gone or find(name, *a))
    with pytest.raises(UserError, match="flash_attention_2 needs a GPU"):
        load(attn_implementation="flash_attention_2")


def test_four_bits_are_asked_of_transformers(tiny_readers, monkeypatch):
    find, version, asked = importlib.util.find_spec, importlib.metadata.version, {}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: name == "bitsandbytes" or find(name, *a))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0" if name == "bitsandbytes" else version(name))

    def loading(*_, **options):
        asked.update(options)
        raise OSError("seen enough")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loading)
    with pytest.raises(UserError, match="seen enough"):
        load_receiver(tiny_readers["llama"], load=LoadConfig(load_in_4bit=True, dtype="bfloat16"))
    quant = asked["quantization_config"]
    assert quant.load_in_4bit and quant.bnb_4bit_quant_type == "nf4"
    assert quant.bnb_4bit_compute_dtype == torch.bfloat16
    assert asked["device_map"] == {"": torch.device("cpu")}


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_kernels_agree(family, monkeypatch):
    """flash-attention's own is stood in for: torch's with the causal mask that it is documented to have."""
    calls = []

    def flash_attn_func(q, k, v, softmax_scale, causal, softcap):
        calls.append(q.shape)
        q, k, v = (x.transpose(1, 2).float() for x in (q, k, v))
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        scores = q @ k.mT * softmax_scale
        scores = torch.tanh(scores / softcap) * softcap if softcap else scores
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        return (scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v).transpose(1, 2)

    monkeypatch.setattr("latentwire.receivers.kernels.HALF", (torch.float32,))
    monkeypatch.setitem(sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_func=flash_attn_func))
    tokenizer = tiny_tokenizer(300, digits=False)
    said, states = {}, {}
    for kernel in ("sdpa", "eager", "flash_attention_2"):
        receiver = Receiver(kernel, model_of(family), tokenizer, attention=kernel)
        one, other = read(receiver), read(receiver, count=17)
        said[kernel] = generate(receiver, one, TAIL, 6, 6).ids
        assert bool(calls) == (kernel == "flash_attention_2")
        calls.clear()
        both = Prefix.stacked([one, other])
        padded = generate(receiver, both, [TAIL[0], [5, 6]], 6, 6).ids
        assert padded[0] == said[kernel][0] and calls == [], "rows with padding are left to torch's kernels"
        states[kernel] = [k for k, _ in one.kv]
    assert said["sdpa"] == said["eager"] == said["flash_attention_2"]
    torch.testing.assert_close(states["eager"], states["sdpa"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states["flash_attention_2"], states["sdpa"], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_layers_that_accelerate_keeps_elsewhere_are_brought_in(tiny_readers):
    """Spread by ``device_map``, a layer has a hook around its forward, which must not be lost with it."""
    plain = load_receiver(tiny_readers["llama"])
    modules = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head")
    places = {name: "disk" if name == "model.layers.1" else "cpu" for name in modules}
    spread = load_receiver(tiny_readers["llama"], load=LoadConfig(device_map=places))
    assert next(spread.decoder.layers[1].parameters()).is_meta
    assert spread.device == torch.device("cpu") and spread.devices == [torch.device("cpu")] * 2
    assert generate(spread, read(spread), TAIL, 6, 6).ids == generate(plain, read(plain), TAIL, 6, 6).ids
    assert spread.fingerprint() == plain.fingerprint()


@torch.no_grad()
def test_hooks_around_every_module_as_four_bits_bring_them_lose_nothing(tiny_readers):
    plain = load_receiver(tiny_readers["llama"])
    model = AutoModelForCausalLM.from_pretrained(tiny_readers["llama"])
    hooked = Receiver("llama", dispatch_model(model, {"": "cpu"}, force_hooks=True), plain.tokenizer)
    assert hasattr(hooked.decoder, "_hf_hook")
    for (k, v), (own_k, own_v) in zip(read(plain).kv, read(hooked).kv, strict=True):
        assert torch.equal(k, own_k) and torch.equal(v, own_v)
    assert generate(hooked, read(hooked), TAIL, 6, 6).ids == generate(plain, read(plain), TAIL, 6, 6).ids


@torch.no_grad()
@pytest.mark.parametrize("injection", ["kv-prefix", "soft-tokens"])
def test_a_receiver_may_be_on_another_device_than_the_encoder(tiny_readers, injection):
    """``meta`` stands in for the other device: it computes shapes alone, and meets no tensor of another."""
    torch.manual_seed(0)
    links = {name: LinkConfig(receiver=str(tiny_readers[name])) for name in ("llama", "gpt2")}
    if injection == "soft-tokens":
        links["gpt2"].injection = SoftTokensConfig()
    encoder = LMEncoderConfig(d_z=16, ratios=(4,), window=64, init=str(tiny_readers["llama"]))
    wire = Wire.create(WireConfig(encoder, links), [WORDS, WORDS[:100]]).eval()
    wire.frozen["gpt2"].model.to("meta")
    wire.frozen["gpt2"].devices = [torch.device("meta")] * 2
    wire.place("cpu")
    assert {p.device.type for p in wire.links["gpt2"].parameters()} == {"meta"}
    latents = wire.latents(wire.encode([WORDS, WORDS[:50]], ratio=4))
    prefix = wire.prefix("gpt2", latents, behind=[latents])
    assert latents.z_BMD.device.type == wire.device.type == "cpu"
    assert {x.device.type for pair in prefix.kv for x in pair} | {prefix.mask_BM.device.type} == {"meta"}
    ids = torch.ones(2, 3, dtype=torch.long, device="meta")
    receiver = wire.get_receiver("gpt2")
    assert receiver.read(ids, ids > 0, prefix).kv[0][0].device.type == "meta"
    assert wire.prefix("llama", latents).mask_BM.device.type == "cpu"


def test_how_receivers_are_loaded_is_asked_by_name_and_not_saved(tiny_readers, tmp_path):
    links = {name: LinkConfig(receiver=str(tiny_readers[name])) for name in ("llama", "gpt2")}
    links["llama"].load = LoadConfig(dtype="bfloat16", attn_implementation="eager")
    encoder = LMEncoderConfig(d_z=16, ratios=(4,), window=64, init=str(tiny_readers["llama"]))
    wire = Wire.create(WireConfig(encoder, links), [WORDS, WORDS[:100]])
    assert wire.get_receiver("llama").dtype == torch.bfloat16
    assert wire.get_receiver("llama").attention == "eager"
    wire.save_pretrained(tmp_path)
    again = Wire.from_pretrained(tmp_path, dtype={"gpt2": "float16"}, device_map="cpu")
    assert [again.get_receiver(name).dtype for name in links] == [torch.float32, torch.float16]
    assert again.get_receiver("llama").attention == "sdpa"
    with pytest.raises(UserError, match="dtype names 'qwen2', which is not loaded; receivers are: llama, gpt2"):
        Wire.from_pretrained(tmp_path, dtype={"qwen2": "float16"})


def saved(config, folder):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer(300, digits=False).save_pretrained(folder)
    return folder


SMALL = {**SHAPE, "num_hidden_layers": 2, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=320), r"'bloom' cannot be receivers: .*ALiBi"),
        (PhiConfig(**{k: v for k, v in SMALL.items() if k != "head_dim"}), "'phi' cannot be receivers"),
        (DiffLlamaConfig(**SMALL), r"'diffllama' cannot be receivers: read on top of a prefix its logits are"),
        # its full layers turn no keys
        (
            Cohere2Config(**SMALL, layer_types=["sliding_attention", "full_attention"], sliding_window=64),
            r"'cohere2' cannot be receivers: its keys are not turned",
        ),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_a_family_that_would_be_read_wrongly_is_refused_by_its_name(config, why, tmp_path):
    with pytest.raises(UserError, match=why):
        load_receiver(saved(config, tmp_path))


def test_a_family_that_no_test_knows_is_read_if_it_proves_itself(tmp_path):
    receiver = load_receiver(saved(Starcoder2Config(**SMALL), tmp_path))
    assert generate(receiver, read(receiver), TAIL, 3, 3).ids
