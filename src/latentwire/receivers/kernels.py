"""What computes attention once keys are joined: torch's fused kernels, flash-attention 2, or plain arithmetic.

Only the first takes every mask that is needed here. flash-attention 2 takes none: it serves rows without padding that
see all of their prefix, such as one text that is read or continued, and leaves the others to ``sdpa``. Scores with a
cap (Gemma 2) are computed openly, since torch's kernels know of none.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend

from latentwire.errors import UserError

KERNELS = ("flash_attention_2", "sdpa", "eager")
DECODING = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""torch's kernels for decoding. cuDNN's is left out: it makes a plan for every new length, and in decoding every step
has one; where lengths are fixed (``recorded.py``), nothing is known of it."""
HALF = (torch.bfloat16, torch.float16)
WIDEST = 256
"""The widest head that flash-attention 2 takes."""


def choose(asked: str, model: Any) -> str:
    """The kernel for a model: the one asked for, or the first that is there. UserError: it is not, or cannot be."""
    if asked and asked not in KERNELS:
        raise UserError(f"attn_implementation is one of {', '.join(KERNELS)}, not {asked!r}")
    if asked in ("sdpa", "eager"):
        return asked
    why = flash_lacks(model)
    if asked and why:
        raise UserError(f"attn_implementation flash_attention_2 needs {why}; leave it out to get sdpa")
    return "sdpa" if why else "flash_attention_2"


def flash_lacks(model: Any) -> str:
    """What flash-attention 2 wants and does not have; nothing if it can be used."""
    words, config = model.get_input_embeddings().weight, model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if importlib.util.find_spec("flash_attn") is None:
        return "the package flash-attn"
    if words.device.type != "cuda":
        return "a GPU"
    if words.dtype not in HALF:
        return "dtype bfloat16 or float16"
    return "" if width <= WIDEST and width % 8 == 0 else f"heads of at most {WIDEST} numbers, a multiple of 8"


def plain(own_BTT: Tensor, prefix_mask_BP: Tensor | None) -> bool:
    """Whether every row sees all of its prefix and is causal in itself, so that no mask has to say it.

    Waits for the device, so it is asked only where the answer is used and nothing is recorded.
    """
    if own_BTT.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    T = own_BTT.shape[1]
    whole = (own_BTT == torch.ones(T, T, dtype=torch.bool, device=own_BTT.device).tril()).all()
    return bool(whole if prefix_mask_BP is None else whole & prefix_mask_BP.all())


def flash(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, softcap: float | None) -> Tensor:
    """Causal attention [B, heads, T, K], the last query beside the last key. key, value [B, H, S, K]."""
    from flash_attn import flash_attn_func  # ty: ignore[import-not-found]

    kind = query.dtype if query.dtype in HALF else torch.bfloat16
    q, k, v = (x.transpose(1, 2).to(kind) for x in (query, key, value))
    out = flash_attn_func(q, k, v, softmax_scale=scaling, causal=True, softcap=softcap or 0.0)
    return out.transpose(1, 2).to(query.dtype)


def fused(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scaling: float | None
) -> Tensor:
    """torch's own choice among its kernels, [B, H, T, K]."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)


def eager(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    softcap: float | None = None,
) -> Tensor:
    """Scores, softmax in float32, weighted values: [B, H, T, K]. mask is added to the scores, behind their cap."""
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    weights = F.dropout(scores.softmax(-1, dtype=torch.float32).to(value.dtype), dropout)
    return weights @ value
