"""Every registered method, with the least it needs to be built. A new method is found here by being registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentwire import adapters, encoders, injections, objectives
from latentwire.adapters import AdapterConfig
from latentwire.config import decode
from latentwire.encoders import EncoderConfig
from latentwire.injections import InjectionConfig
from latentwire.objectives import ObjectiveConfig

ROOMS = (adapters, encoders, injections, objectives)
D_Z = 16

NEEDS: dict[str, dict[str, Any]] = {
    "lm": {"init": "llama", "ratios": [4, 8], "window": 64},
    "memory": {"init": "llama", "ratios": [4, 8], "window": 64},
    "pooled": {"init": "llama", "ratios": [4, 8], "window": 64, "width": 16, "layers": 1, "heads": 2},
    "pca": {"init": "llama", "ratios": [4, 8], "window": 64},
    "pca-refined": {"init": "llama", "ratios": [4, 8], "window": 64, "width": 16, "layers": 1, "heads": 2},
    "refined": {"inner": {"type": "lm", "init": "llama"}, "ratios": [4, 8], "window": 64, "layers": 1, "heads": 2},
    "sentence": {"init": "bert", "ratios": [4, 8], "window": 64},
    "sentence-tokens": {"init": "bert", "ratios": [4, 8], "window": 64, "width": 16, "heads": 2},
    "aligned": {
        "init": "llama",
        "anchor": "bert",
        "ratios": [4, 8],
        "window": 64,
        "width": 16,
        "layers": 1,
        "heads": 2,
    },
    "byte": {"ratios": [4, 8], "window": 64, "width": 16, "layers": 1, "heads": 2},
    "mlp": {"layers": 1, "head_dim": 8},
    "unfold": {"layers": 1, "head_dim": 8},
    "hinted": {"inner": {"type": "mlp", "layers": 1, "head_dim": 8}, "styles": 3},
    "kv-prefix": {"multiple": 1.0},
    "kv-column": {"multiple": 0.5},
    "soft-tokens": {"multiple": 1.0},
    "soft-and-kv": {"soft": {"multiple": 1.0}, "kv": {"multiple": 1.0}},
    "coprocessor": {"multiple": 1.0},
    # an open gate: a closed one lets nothing of the latents through, which test_cross_attention.py looks at
    "cross-attention": {"heads": 2, "head_dim": 8, "gate": 0.5},
}
"""What a method must be told, or is told to be small; all others get their defaults."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lm, few layers": ("lm", {"layers": 1}),
    "lm with a lexicon": ("lm", {"lexicons": ["gemma"], "word": 8}),
    "lm with a lexicon that reads": ("lm", {"lexicons": ["qwen2"], "word": 8, "lexicon_layers": 1}),
    "lm, a fixed number": ("lm", {"fixed": True}),
    "lm, a fixed number of means": ("lm", {"fixed": True, "pool": "mean", "init": "qwen2"}),
    "lm by LoRA": ("lm", {"lora": 2}),
    "lm of GPT-2 by LoRA on some maps": ("lm", {"lora": 2, "lora_on": ["c_attn", "c_fc"], "init": "gpt2"}),
    "lm of Gemma, first layer frozen": ("lm", {"init": "gemma", "frozen_layers": 1}),
    "lm of Qwen2 by LoRA, first layer frozen": ("lm", {"init": "qwen2", "lora": 4, "frozen_layers": 1}),
    "sentence by its pooler, a fixed number": ("sentence", {"pool": "pooler", "fixed": True}),
    "sentence-tokens, a fixed number": ("sentence-tokens", {"fixed": True, "layers": 2}),
    "aligned to learning words, in one vector": ("aligned", {"init": "gemma", "train_words": True, "group": 16}),
    "byte, a fixed number": ("byte", {"fixed": True}),
    "byte with private latents": ("byte", {"receivers": ["one", "two"], "shared": 2}),
    "byte with private latents, a fixed number": (
        "byte",
        {"receivers": ["one", "two"], "shared": 4, "private": 2, "fixed": True},
    ),
    "memory of GPT-2, causal": ("memory", {"init": "gpt2", "causal": True}),
    "memory spread over the text of Gemma": ("memory", {"init": "gemma", "spread": True, "layers": 1}),
    "pooled in stages": ("pooled", {"pooler": "stages"}),
    "pooled by convolution": ("pooled", {"pooler": "convolution", "train_words": True}),
    "pooled and expanded": ("pooled", {"pooler": "expand", "init": "qwen2", "group": 3}),
    "pca, whitened": ("pca", {"init": "gpt2", "whiten": True}),
    "pca-refined from more components than there are": ("pca-refined", {"init": "gemma", "pooler": "queries"}),
    "refined bytes, with dropout": (
        "refined",
        {"inner": {"type": "byte", "width": 16, "layers": 1, "heads": 2}, "keep": 0.85, "anneal": 10},
    ),
    "answer with its question": ("answer", {"question": 0.2}),
    "first-token, scaled": ("first-token", {"most": 4.0}),
    "first-tokens, growing": ("first-tokens", {"tokens": 1, "grown": 3}),
    "kl of the first tokens, softened": ("kl", {"tokens": 2, "temperature": 2.0}),
    "hidden-states by cosine, half of them taught": (
        "hidden-states",
        {"measure": "cosine", "at": [1.0], "taught": 0.5},
    ),
    "embedding-reconstruction in its own scale": ("embedding-reconstruction", {"matched": False}),
    "embedding-alignment of the first slots": ("embedding-alignment", {"to": "first", "slots": 2}),
    "rms of all slots together": ("rms", {"each": False}),
    "contrastive by hinge": ("contrastive", {"kind": "hinge", "margin": -0.5}),
}
"""Settings that change what a method is made of: each passes the same tests as a method of its own."""


def names(family: type) -> list[str]:
    """Registered methods of a family with their variants, in order."""
    known = family.known()  # ty: ignore[missing-attribute]
    return [*sorted(known), *(name for name, (method, _) in VARIANTS.items() if method in known)]


ENCODERS, ADAPTERS = names(EncoderConfig), names(AdapterConfig)
INJECTIONS, OBJECTIVES = names(InjectionConfig), names(ObjectiveConfig)


def config(family: type, name: str, readers: dict[str, Path], **more: Any) -> Any:
    """The config of one method or variant; names of readers stand for their directories."""
    name, changes = VARIANTS.get(name, (name, {}))
    tree = placed({"type": name, **NEEDS.get(name, {}), **changes, **more}, readers)
    if family is EncoderConfig:
        tree["d_z"] = D_Z
    return decode(family, tree)


def placed(tree: dict[str, Any], readers: dict[str, Path]) -> dict[str, Any]:
    """A config's tree with directories for names of readers, also in a config inside it."""
    tree = {key: placed(value, readers) if isinstance(value, dict) else value for key, value in tree.items()}
    for key in ("init", "anchor"):
        if tree.get(key) in readers:
            tree[key] = str(readers[tree[key]])
    if "lexicons" in tree:
        tree["lexicons"] = [str(readers[reader]) for reader in tree["lexicons"]]
    return tree
