"""Which families of models can be read with, and what of each differs from layer to layer.

What makes a family readable: every layer goes through transformers' attention interface, keys carry their position by
the family's own rotation or the input by a learned table, and the logits are the head's with at most a scale and a cap.
Families in ``TESTED`` are compared with transformers' own forward in the tests. Any other is compared when it is loaded
(see ``check.py``), and refused by its name where it differs.
"""

from __future__ import annotations

import sys
from typing import Any

from latentwire.errors import UserError

TESTED = (
    "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite", "llama", "mistral", "opt", "qwen2", "qwen3",
)  # fmt: skip

REFUSED = {
    "bloom": "its positions are in the scores of its attention (ALiBi)",
    "mpt": "its positions are in the scores of its attention (ALiBi)",
    "gpt_oss": "its attention has sinks beside the keys",
    "gptj": "it rotates keys inside of its layers",
    "codegen": "it rotates keys inside of its layers",
    "mamba": "it keeps a state, no keys and values",
    "mamba2": "it keeps a state, no keys and values",
    "rwkv": "it keeps a state, no keys and values",
    "recurrent_gemma": "some of its layers keep a state, no keys and values",
    "jamba": "some of its layers keep a state, no keys and values",
    "gemma3n": "some of its layers borrow the keys of others",
    "deepseek_v2": "it keeps compressed keys and values",
    "deepseek_v3": "it keeps compressed keys and values",
}
"""Families that are known not to fit, and why."""

LAYERS = ("full_attention", "sliding_attention")
"""Kinds of layers that are known here."""


def refusal(family: str, why: str) -> UserError:
    """What a person is told about a model that cannot be a receiver."""
    return UserError(
        f"models of the family {family!r} cannot be receivers: {why}; take one of: {', '.join(TESTED)}, "
        "or another whose layers keep plain keys and values"
    )


def check_config(config: Any) -> None:
    """UserError: a model of this config cannot be a receiver. Nothing has been loaded for it yet."""
    text = config.get_text_config()
    for family in (text.model_type, config.model_type):
        if family in REFUSED:
            raise refusal(family, REFUSED[family])
    if getattr(config, "is_encoder_decoder", False):
        raise refusal(config.model_type, "it is no decoder alone")
    if strange := sorted(set(layer_kinds(text)) - set(LAYERS)):
        raise refusal(text.model_type, f"it has layers of the kind {strange[0]!r}")
    if getattr(text, "use_bidirectional_attention", False):
        raise refusal(text.model_type, "it looks at tokens that come later")
    for name in ("num_attention_heads", "num_hidden_layers", "hidden_size", "max_position_embeddings"):
        if not isinstance(getattr(text, name, None), int):
            raise refusal(text.model_type, f"its config does not say {name} as one number")


def layer_kinds(config: Any) -> list[str]:
    """Of each layer of a text config, what its attention sees: ``full_attention`` or ``sliding_attention``."""
    if kinds := getattr(config, "layer_types", None):
        return list(kinds)
    slides = getattr(config, "sliding_window", None) is not None
    return [LAYERS[slides]] * config.num_hidden_layers


def sliding_windows(config: Any) -> tuple[int, ...]:
    """Of each layer how many positions back it sees, itself included (0: all of them); empty where all see all."""
    width = getattr(config, "sliding_window", None) or 0
    found = tuple(width if kind == LAYERS[1] else 0 for kind in layer_kinds(config))
    return found if any(found) else ()


def positions_learned(model: Any) -> bool:
    """Whether positions are a table that is added to the input (else keys are rotated). UserError: they are neither."""
    decoder = model.get_decoder()
    if hasattr(decoder, "rotary_emb") and hasattr(sys.modules[type(decoder).__module__], "apply_rotary_pos_emb"):
        return False
    if any(getattr(decoder, name, None) is not None for name in ("wpe", "embed_positions")):
        return True
    raise refusal(
        model.config.get_text_config().model_type, "it has neither one rotation of keys nor learned positions"
    )
