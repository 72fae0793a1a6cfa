"""Gated blocks behind a few of the receiver's layers, whose tokens look at the slots (Flamingo, Alayrac et al. 2022).

The slots take no place in the receiver's own cache: the prefix is that of the head, and it carries the blocks, which
act on every token read on top of it, whether in training, in judging or at any step of decoding. A text's prefix
carries none, so neither the teacher nor a text baseline can meet them. Each gate starts at 0, where the receiver is
untouched to the bit.

Unlike Flamingo's, a block has no feed-forward part: that would change the receiver whatever was sent. And one more key,
of zeros with a value of zeros, stands beside the slots: a token that looks for nothing in them takes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.errors import UserError
from latentwire.injections.base import Injection, InjectionConfig
from latentwire.receivers import Geometry, Receiver
from latentwire.receivers.receiver import pad
from latentwire.types import LayerBlock, Prefix


@InjectionConfig.register_subclass("cross-attention")
@dataclass
class CrossAttentionConfig(InjectionConfig):
    """at: shares of the receiver's depth; a block stands behind the layer that completes each. heads, head_dim: of each
    block. gate: where the parameter starts whose tanh scales what a block adds; at 0 only the gates learn at first.
    """

    at: tuple[float, ...] = (0.25, 0.5, 0.75)
    heads: int = 8
    head_dim: int = 64
    gate: float = 0.0

    def build(self, geometry: Geometry) -> CrossAttention:
        if not self.at or not all(0 < share <= 1 for share in self.at):
            raise UserError(f"injection.at names shares of the depth, each above 0 and at most 1, not {self.at}")
        for name in ("heads", "head_dim"):
            if getattr(self, name) < 1:
                raise UserError(f"injection.{name} must be at least 1, not {getattr(self, name)}")
        return CrossAttention(self, geometry)


class CrossAttention(Injection):
    """Slots [B, S, E] → LayerNorm, and a code of where each stands → K and V [B, heads, S, head_dim] of each block."""

    def __init__(self, config: CrossAttentionConfig, geometry: Geometry) -> None:
        super().__init__()
        self.config, self.width = config, geometry.width
        # shares that end in the same layer are one block
        layers = sorted({max(round(share * geometry.layers), 1) - 1 for share in config.at})
        self.norm = nn.LayerNorm(geometry.width)
        self.blocks = nn.ModuleDict({str(layer): Crossing(config, geometry.width) for layer in layers})

    @torch.no_grad()
    def calibrate(self, receiver: Receiver, texts: list[str]) -> None:
        """What a block adds is in units of its layer's states: they are large, and differ by layer and family."""
        mask_BT, ids_BT = pad(receiver.prompt.context_ids(texts), receiver.prompt.pad_id, receiver.device)
        head = receiver.head_for(len(ids_BT))
        nothing = head.kv[0][0], head.kv[0][1], head.mask_BM

        def measuring(layer: str) -> LayerBlock:
            def act(h_BTE: Tensor, *_: Tensor) -> Tensor:
                if h_BTE.shape[-1] != self.width:
                    raise UserError(
                        f"layers of {receiver.name!r} are {h_BTE.shape[-1]} wide and its embeddings {self.width}; "
                        "cross-attention needs both alike, so give this receiver another injection"
                    )
                self.blocks[layer].scale.copy_(h_BTE[mask_BT].float().square().mean(-1).sqrt().mean())  # ty: ignore[not-callable]
                return h_BTE

            return LayerBlock(int(layer), act, *nothing)

        receiver.read(ids_BT, mask_BT, replace(head, blocks=tuple(map(measuring, self.blocks))))

    def forward(
        self, slots_BSE: Tensor, mask_BS: Tensor, positions_BS: Tensor, next_B: Tensor, receiver: Receiver
    ) -> Prefix:
        told_BSE = self.norm(slots_BSE) + places(positions_BS, self.width)
        told = {layer: block.told(told_BSE) for layer, block in self.blocks.items()}  # ty: ignore[not-callable]
        blocks = tuple(
            # what a block adds is linear in the values
            LayerBlock(int(layer), self.blocks[layer], k, v * self.strength, mask_BS)
            for layer, (k, v) in told.items()
        )
        return replace(receiver.head_for(slots_BSE.shape[0]), next_B=next_B, blocks=blocks)


class Crossing(nn.Module):
    """One block. ``told`` is asked once for each text, ``forward`` for whatever is read behind it."""

    scale: Tensor

    def __init__(self, config: CrossAttentionConfig, width: int) -> None:
        super().__init__()
        self.heads, inner = config.heads, config.heads * config.head_dim
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.gate = nn.Parameter(torch.tensor(float(config.gate)))
        self.register_buffer("scale", torch.ones(()))

    def told(self, told_BSE: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the slots, [B, heads, S, head_dim]."""
        return self.by_head(self.key(told_BSE)), self.by_head(self.value(told_BSE))

    def by_head(self, x_BTW: Tensor) -> Tensor:
        return x_BTW.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, h_BTE: Tensor, k_BHMK: Tensor, v_BHMK: Tensor, mask_BM: Tensor) -> Tensor:
        # the receiver's numbers may be shorter than the wire's: they meet in the wire's, under autocast in its own
        q_BHTK = self.by_head(self.query(self.norm(h_BTE.to(self.query.weight.dtype))))
        k_BHMK, v_BHMK = (F.pad(x.to(q_BHTK.dtype), (0, 0, 1, 0)) for x in (k_BHMK, v_BHMK))
        seen = F.pad(mask_BM, (1, 0), value=True)[:, None, None]
        found = F.scaled_dot_product_attention(q_BHTK, k_BHMK, v_BHMK, attn_mask=seen)
        added_BTE = self.out(found.transpose(1, 2).flatten(2)) * (self.gate.tanh() * self.scale)
        return h_BTE + added_BTE.to(h_BTE.dtype)


def places(positions_BS: Tensor, width: int) -> Tensor:
    """Sines and cosines of where slots stand, [B, S, width]: no RoPE turns a block's keys as it does the cache's."""
    rates = torch.arange(-(-width // 2), device=positions_BS.device) * (-math.log(10000.0) * 2 / width)
    angles = positions_BS[..., None].float() * rates.exp()
    return torch.cat([angles.sin(), angles.cos()], -1)[..., :width]
