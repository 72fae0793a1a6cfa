"""A transformer block that is not causal: over a sequence itself, or from queries to another sequence."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.errors import UserError


class Block(nn.Module):
    """Pre-norm attention and MLP. x [B, T, W] attends to ``other`` [B, S, W] (itself if None) where ``real_BS``.

    still: outputs start at zero, so that an untrained block changes nothing.
    """

    def __init__(self, width: int, heads: int, multiple: float = 4.0, *, still: bool = False) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise UserError(f"{heads} heads cannot share a width of {width}: the width must be a multiple of the heads")
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        hidden = int(multiple * width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        if still:
            for last in (self.out, self.down):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def forward(self, x_BTW: Tensor, real_BS: Tensor, other_BSW: Tensor | None = None) -> Tensor:
        B, T, W = x_BTW.shape
        asks_BTW = self.norm1(x_BTW)
        told_BSW = asks_BTW if other_BSW is None else self.norm1(other_BSW)
        q = self.q(asks_BTW).reshape(B, T, self.heads, -1).transpose(1, 2)
        k, v = self.kv(told_BSW).reshape(B, told_BSW.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        # every text has a first token, so no row of the mask is empty
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=real_BS[:, None, None, :])
        x_BTW = x_BTW + self.out(mixed.transpose(1, 2).reshape(B, T, W))
        return x_BTW + self.down(F.gelu(self.up(self.norm2(x_BTW))))
