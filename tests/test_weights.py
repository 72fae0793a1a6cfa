"""Packed readers unpack once, exactly and safely."""

from __future__ import annotations

import threading

import pytest
import torch
from safetensors.torch import load_file

from latentwire import weights
from latentwire.errors import UserError
from latentwire.sandbox import checkpoint, tokenizers
from latentwire.sandbox.trunk import Shape, init


@pytest.fixture
def packed(tmp_path):
    shape = Shape("qwen2", 300, 48, 2, 4, 2, 16, 96, 128)
    checkpoint.export(shape, init(shape, 0), tokenizers.shipped("qwen2"), tmp_path / "reader")
    weights.pack(tmp_path / "reader", tmp_path / "packed")
    return tmp_path


def test_int8_by_row_is_within_half_a_step(packed):
    weights.unpack(packed / "packed", packed / "again")
    before, after = (load_file(packed / n / "model.safetensors") for n in ("reader", "again"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        step = tensor.abs().amax(-1, keepdim=True) / 127 if tensor.ndim == 2 else tensor.abs() / 128
        assert ((tensor - after[name]).abs() <= step * 0.501 + 1e-9).all()


def test_what_is_unpacked_is_an_ordinary_checkpoint(packed):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = weights.unpack(packed / "packed", packed / "again")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32 and model.config.model_type == "qwen2"
    assert AutoTokenizer.from_pretrained(folder).decode([1, 2]) == "<s></s>"


def test_packing_again_changes_nothing(packed):
    folder = weights.unpack(packed / "packed", packed / "again")
    weights.pack(folder, packed / "twice")
    for name in ("weights-0.safetensors.zz", "tokenizer.json"):
        assert (packed / "twice" / name).read_bytes() == (packed / "packed" / name).read_bytes()


def test_files_stay_below_the_limit(packed, monkeypatch):
    monkeypatch.setattr(weights, "FILE_BYTES", 20_000)
    files = weights.pack(packed / "reader", packed / "parts")
    assert len(files) > 2 and all(path.stat().st_size < 24_000 for path in files)
    weights.unpack(packed / "parts", packed / "again")
    assert (
        load_file(packed / "again" / "model.safetensors").keys()
        == load_file(packed / "reader" / "model.safetensors").keys()
    )


def test_damage_is_refused_and_leaves_nothing(packed):
    path = packed / "packed" / "weights-0.safetensors.zz"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        weights.unpack(packed / "packed", packed / "again")
    assert not (packed / "again").exists()


def test_several_at_once_make_one(packed):
    failed = []

    def work():
        try:
            weights.unpack(packed / "packed", packed / "again")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert (packed / "again" / "model.safetensors").exists()
    assert not [p for p in packed.iterdir() if p.name.startswith(".")]


def test_an_unknown_reader_is_named():
    with pytest.raises(UserError, match=r"mistral.*llama, qwen2, gpt2"):
        weights.unpacked("mistral")


def test_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LATENTWIRE_CACHE", str(tmp_path / "here"))
    assert weights.cache_dir() == tmp_path / "here"
