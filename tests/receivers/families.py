"""Small random receivers of every family that is promised to work, with what makes each of them special switched on."""

from __future__ import annotations

from typing import Any

import torch
import transformers as t

VOCABULARY, SLIDING = 320, 6

SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
         "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}  # fmt: skip
SLIDES = {"sliding_window": SLIDING}
MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
GROUPED = {"head_dim": None}
"""Families that take the width of a head from that of the model."""

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, stretched": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 1e4,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "qwen2": ("Qwen2", GROUPED),
    "qwen2, sliding": ("Qwen2", {**GROUPED, "use_sliding_window": True, "max_window_layers": 1, **SLIDES}),
    "qwen3": ("Qwen3", {}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral, sliding": ("Mistral", SLIDES),
    "gemma": ("Gemma", {}),
    "gemma2": (
        "Gemma2",
        {**SLIDES, **MIXED, "query_pre_attn_scalar": 12, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3": ("Gemma3", {**SLIDES, **MIXED, "query_pre_attn_scalar": 12}),
    "gpt2": ("GPT2", {}),
    "opt": ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "opt, narrow words": ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "gpt_neox": ("GPTNeoX", GROUPED),
    "gpt_neox, one after the other": ("GPTNeoX", {**GROUPED, "use_parallel_residual": False}),
    "granite": (
        "Granite",
        {"embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2},
    ),
}
"""By name: the beginning of transformers' classes, and settings."""

CLASSES = {"GPT2": "GPT2LMHeadModel"}
CONFIGS = {"Gemma3": "Gemma3TextConfig"}


def model_of(name: str, **more: Any) -> Any:
    """A random causal LM, the same at every call."""
    kind, settings = FAMILIES[name]
    shape = {**SHAPE, **settings, **more}
    shape = {key: value for key, value in shape.items() if value is not None or key in ("pad_token_id", *SLIDES)}
    if kind == "GPT2":
        shape = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "initializer_range": 0.3,
                 "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
    if kind in ("OPT", "GPTNeoX"):
        shape = {key: value for key, value in shape.items() if key not in ("num_key_value_heads", "head_dim")}
        shape |= {"init_std": 0.3}
    config = getattr(t, CONFIGS.get(kind, f"{kind}Config"))(**shape, attn_implementation="eager")
    torch.manual_seed(list(FAMILIES).index(name))
    return getattr(t, CLASSES.get(kind, f"{kind}ForCausalLM"))(config).eval()
