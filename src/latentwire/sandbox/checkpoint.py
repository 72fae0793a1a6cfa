"""Trained weights as ordinary transformers checkpoints, and the state of a run that can go on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentwire.errors import UserError
from latentwire.sandbox import tokenizers
from latentwire.sandbox.trunk import Shape

_HUGGING_FACE = {
    "norm1": "input_layernorm.weight",
    "norm2": "post_attention_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
}


def state_dict(shape: Shape, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under transformers' names (tied head left out)."""
    if not shape.gpt2:
        out = {"model.embed_tokens.weight": weights["embed"], "model.norm.weight": weights["norm"]}
        for layer in range(shape.layers):
            for name in shape.layer_shapes():
                out[f"model.layers.{layer}.{_HUGGING_FACE[name]}"] = weights[f"layers.{layer}.{name}"]
        return out
    out = {"transformer.wte.weight": weights["embed"], "transformer.wpe.weight": weights["positions"]}
    out |= {"transformer.ln_f.weight": weights["norm"], "transformer.ln_f.bias": weights["norm_bias"]}
    for layer in range(shape.layers):
        w = {name: weights[f"layers.{layer}.{name}"] for name in shape.layer_shapes()}
        into = f"transformer.h.{layer}"
        for norm, name in (("ln_1", "norm1"), ("ln_2", "norm2")):
            out |= {f"{into}.{norm}.weight": w[name], f"{into}.{norm}.bias": w[f"{name}_bias"]}
        # GPT-2 keeps its matrices as [in, out]
        out[f"{into}.attn.c_attn.weight"] = torch.cat([w["q"], w["k"], w["v"]]).T
        out[f"{into}.attn.c_attn.bias"] = torch.cat([w["q_bias"], w["k_bias"], w["v_bias"]])
        for place, name in (("attn.c_proj", "o"), ("mlp.c_fc", "up"), ("mlp.c_proj", "down")):
            out |= {f"{into}.{place}.weight": w[name].T, f"{into}.{place}.bias": w[f"{name}_bias"]}
    return out


def read(shape: Shape, folder: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint under our own names, float32: the other way round than :func:`state_dict`."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{folder} holds no model.safetensors; give the folder of a checkpoint")
    theirs = {name: tensor.float() for name, tensor in load_file(path).items()}
    weights: dict[str, Tensor] = {}
    for name in shape.shapes():
        weights[name] = _find(name, theirs, shape)
        if weights[name].shape != torch.Size(shape.shapes()[name]):
            raise UserError(
                f"{folder}: {name} is {tuple(weights[name].shape)}, the config's shape says {shape.shapes()[name]}"
            )
    return weights


def _find(name: str, theirs: dict[str, Tensor], shape: Shape) -> Tensor:
    outer = {"embed": "wte.weight", "positions": "wpe.weight", "norm": "ln_f.weight", "norm_bias": "ln_f.bias"}
    try:
        if name in outer:
            plain = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight"}
            return theirs[f"transformer.{outer[name]}" if shape.gpt2 else plain[name]]
        _, layer, leaf = name.split(".")
        if not shape.gpt2:
            return theirs[f"model.layers.{layer}.{_HUGGING_FACE[leaf]}"]
        kind = "bias" if leaf.endswith("_bias") else "weight"
        stem, into = leaf.removesuffix("_bias"), f"transformer.h.{layer}"
        if stem in ("norm1", "norm2"):
            return theirs[f"{into}.ln_{stem[-1]}.{kind}"]
        if stem in ("q", "k", "v"):
            return (
                theirs[f"{into}.attn.c_attn.{kind}"]
                .chunk(3, -1)["qkv".index(stem)]
                .permute(*((1, 0) if kind == "weight" else (0,)))
            )
        place = {"o": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}[stem]
        return theirs[f"{into}.{place}.{kind}"].T if kind == "weight" else theirs[f"{into}.{place}.{kind}"]
    except KeyError as missing:
        raise UserError(f"the checkpoint has no {missing}; is it of the family {shape.family!r}?") from None


def config(shape: Shape) -> Any:
    """The transformers config of a shape."""
    from transformers import GPT2Config, LlamaConfig, Qwen2Config

    special: dict[str, Any] = {
        "pad_token_id": tokenizers.PAD,
        "bos_token_id": tokenizers.BOS,
        "eos_token_id": tokenizers.EOS,
    }
    common: dict[str, Any] = {"vocab_size": shape.vocabulary, "tie_word_embeddings": True, "use_cache": True, **special}
    if shape.gpt2:
        made = GPT2Config(
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.ff,
            n_positions=shape.positions,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **common,
        )
        made.architectures = ["GPT2LMHeadModel"]
        return made
    common["head_dim"] = shape.head_width  # Qwen2's attention reads it though its config does not declare it
    family, name = (LlamaConfig, "LlamaForCausalLM") if shape.family == "llama" else (Qwen2Config, "Qwen2ForCausalLM")
    made = family(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.ff,
        max_position_embeddings=shape.positions,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        **common,
    )
    made.architectures = [name]
    return made


def export(shape: Shape, weights: dict[str, Tensor], tokenizer: Path, folder: Path) -> None:
    """Write ``folder`` as a checkpoint for ``AutoModelForCausalLM`` and ``AutoTokenizer``; whole or not at all."""
    partial = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {n: t.detach().float().cpu().contiguous() for n, t in state_dict(shape, weights).items()}
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    made = config(shape)
    made.dtype = "float32"
    made.save_pretrained(partial)
    tokenizers.load(tokenizer).save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def save_state(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """A run's tensors and plain facts in one safetensors file, written whole or not at all."""
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, partial, metadata={"facts": json.dumps(facts)})
    partial.replace(path)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What :func:`save_state` wrote."""
    with safe_open(path, "pt") as file:
        facts = json.loads((file.metadata() or {})["facts"])
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 - not a dict
