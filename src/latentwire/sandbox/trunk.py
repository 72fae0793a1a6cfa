"""The readers' transformer as it is trained: one function for every layer, so that it is compiled once.

The same arithmetic as transformers' Llama, Qwen2 and GPT-2 (a test compares the logits), written over plain tensors:
``torch.compile`` then sees one small graph with the layer's weights as inputs (seconds to compile, where a whole model
takes minutes), and everything a layer needs is in sight. Trained weights leave as an ordinary transformers checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latentwire.errors import UserError

FAMILIES = ("llama", "qwen2", "gpt2")


@dataclass(frozen=True)
class Shape:
    """What a reader is: family, sizes, and how many positions it declares."""

    family: str = "llama"
    vocabulary: int = 12000
    width: int = 384
    layers: int = 10
    heads: int = 6
    kv_heads: int = 2
    head_width: int = 64
    ff: int = 1024
    positions: int = 1024

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UserError(f"no family is called {self.family!r}; there are: {', '.join(FAMILIES)}")
        if self.heads % self.kv_heads:
            raise UserError(f"{self.heads} heads cannot share {self.kv_heads} key/value heads evenly")

    @property
    def gpt2(self) -> bool:
        """Learned positions, LayerNorm, biases and GELU instead of RoPE, RMSNorm and SwiGLU."""
        return self.family == "gpt2"

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of one layer's tensors; matrices are ``[out, in]``."""
        wide, narrow = self.heads * self.head_width, self.kv_heads * self.head_width
        shapes: dict[str, tuple[int, ...]] = {"norm1": (self.width,), "norm2": (self.width,)}
        shapes |= {"q": (wide, self.width), "k": (narrow, self.width), "v": (narrow, self.width)}
        shapes |= {"o": (self.width, wide), "up": (self.ff, self.width), "down": (self.width, self.ff)}
        if self.family == "llama":
            return shapes | {"gate": (self.ff, self.width)}
        shapes |= {"q_bias": (wide,), "k_bias": (narrow,), "v_bias": (narrow,)}
        if self.family == "qwen2":
            return shapes | {"gate": (self.ff, self.width)}
        extra = {"norm1_bias": self.width, "norm2_bias": self.width, "o_bias": self.width}
        return shapes | {
            name: (size,) for name, size in (extra | {"up_bias": self.ff, "down_bias": self.width}).items()
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor: ``embed``, ``norm``, ``layers.<i>.<name>`` …; the head is ``embed``."""
        shapes: dict[str, tuple[int, ...]] = {"embed": (self.vocabulary, self.width), "norm": (self.width,)}
        if self.gpt2:
            shapes |= {"norm_bias": (self.width,), "positions": (self.positions, self.width)}
        for layer in range(self.layers):
            shapes |= {f"layers.{layer}.{name}": shape for name, shape in self.layer_shapes().items()}
        return shapes

    def parameters(self) -> int:
        """Number of weights."""
        return sum(torch.Size(shape).numel() for shape in self.shapes().values())


def init(shape: Shape, seed: int) -> dict[str, Tensor]:
    """Fresh float32 weights: normal(0, .02), what writes to the residual stream scaled down by depth."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for name, size in shape.shapes().items():
        leaf = name.rsplit(".", 1)[-1]
        if len(size) == 1:
            weights[name] = torch.ones(size) if leaf.startswith("norm") and "bias" not in leaf else torch.zeros(size)
        else:
            std = 0.02 if leaf in ("embed", "positions") else size[1] ** -0.5
            std *= (2 * shape.layers) ** -0.5 if leaf in ("o", "down") else 1.0
            weights[name] = torch.randn(size, generator=generator) * std
    return weights


def _norm(x: Tensor, weight: Tensor, bias: Tensor | None, gpt2: bool) -> Tensor:
    if gpt2:
        return F.layer_norm(x, weight.shape, weight, bias, 1e-5)
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * weight


def _rotate(x_BTHK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    # in float32: angles rounded to bfloat16 would be off by whole tokens at the far end
    x, half = x_BTHK.float(), x_BTHK.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return (x * cos + turned * sin).to(x_BTHK.dtype)


def layer(
    shape: Shape, x_BTE: Tensor, w: dict[str, Tensor], cos: Tensor | None, sin: Tensor | None, mask: Tensor | None
) -> Tensor:
    """One layer. ``cos``, ``sin`` ``[B, T, 1, K]`` (None: GPT-2); ``mask`` additive ``[B, 1, T, T]`` (None: causal)."""
    batch, length, _ = x_BTE.shape
    y = _norm(x_BTE, w["norm1"], w.get("norm1_bias"), shape.gpt2)
    # three matrices for the optimiser, one product for the GPU
    bias = torch.cat([w["q_bias"], w["k_bias"], w["v_bias"]]) if "q_bias" in w else None
    qkv = F.linear(y, torch.cat([w["q"], w["k"], w["v"]]), bias).view(batch, length, -1, shape.head_width)
    q, k, v = qkv.split([shape.heads, shape.kv_heads, shape.kv_heads], 2)
    if cos is not None and sin is not None:
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    share = shape.heads // shape.kv_heads
    if share > 1:
        k, v = (t[:, :, :, None].expand(-1, -1, -1, share, -1).flatten(2, 3) for t in (k, v))
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    x_BTE = x_BTE + F.linear(attended.transpose(1, 2).flatten(2), w["o"], w.get("o_bias"))
    y = _norm(x_BTE, w["norm2"], w.get("norm2_bias"), shape.gpt2)
    if shape.gpt2:
        y = F.gelu(F.linear(y, w["up"], w["up_bias"]), approximate="tanh")
    else:
        gate, up = F.linear(y, torch.cat([w["gate"], w["up"]])).chunk(2, -1)
        y = F.silu(gate) * up
    return x_BTE + F.linear(y, w["down"], w.get("down_bias"))


def token_losses(x_NE: Tensor, embed_VE: Tensor, target_N: Tensor) -> Tensor:
    """Cross-entropy of every position, float32 ``[N]``, by the head tied to the embedding."""
    return F.cross_entropy(F.linear(x_NE, embed_VE).float(), target_N, reduction="none")


class Trunk:
    """The reader over a dict of weights. ``compiled``: layer and head go through ``torch.compile``, fixed shapes."""

    def __init__(self, shape: Shape, weights: dict[str, Tensor], compiled: bool = False) -> None:
        self.shape, self.weights = shape, weights
        names = shape.layer_shapes()
        self.layers = [{n: weights[f"layers.{i}.{n}"] for n in names} for i in range(shape.layers)]
        wrap: Callable[..., Any] = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        # the causal and the masked form are two graphs; wrapped apart, neither guards on the other
        self._causal, self._masked, self._losses = wrap(self._layer), wrap(self._layer_masked), wrap(token_losses)
        device = weights["embed"].device
        if not shape.gpt2:
            k = torch.arange(0, shape.head_width, 2, dtype=torch.float32, device=device) / shape.head_width
            angle = torch.arange(shape.positions, dtype=torch.float32, device=device)[:, None] / 10000.0**k
            angle = torch.cat([angle, angle], -1)
            self.cos, self.sin = torch.cos(angle), torch.sin(angle)

    def _layer(self, x: Tensor, w: dict[str, Tensor], cos: Tensor | None, sin: Tensor | None) -> Tensor:
        return layer(self.shape, x, w, cos, sin, None)

    def _layer_masked(
        self, x: Tensor, w: dict[str, Tensor], cos: Tensor | None, sin: Tensor | None, m: Tensor
    ) -> Tensor:
        return layer(self.shape, x, w, cos, sin, m)

    def states(self, ids_BT: Tensor, position_BT: Tensor, allowed_B1TT: Tensor | None = None) -> Tensor:
        """Last states ``[B, T, E]`` after the final norm. ``allowed_B1TT``: bool, who sees whom; None: causal."""
        w, shape = self.weights, self.shape
        x = F.embedding(ids_BT, w["embed"])
        cos = sin = None
        if shape.gpt2:
            x = x + F.embedding(position_BT, w["positions"])
        else:
            cos, sin = self.cos[position_BT][:, :, None], self.sin[position_BT][:, :, None]
        if allowed_B1TT is None:
            for weights in self.layers:
                x = self._causal(x, weights, cos, sin)
        else:
            mask = torch.zeros(allowed_B1TT.shape, dtype=x.dtype, device=x.device)
            mask = mask.masked_fill(~allowed_B1TT, float("-inf"))
            for weights in self.layers:
                x = self._masked(x, weights, cos, sin, mask)
        return _norm(x, w["norm"], w.get("norm_bias"), shape.gpt2)

    def losses(self, x_BTE: Tensor, target_BT: Tensor) -> Tensor:
        """Cross-entropy of every position ``[B, T]``, float32."""
        flat = self._losses(x_BTE.flatten(0, 1), self.weights["embed"], target_BT.flatten())
        return flat.view(target_BT.shape)
