"""A head that rebuilds the embeddings of the first tokens from all slots, by cross-attention.

One learned query a token looks at the slots of its text and at nothing else; it is added to what it finds, so that two
tokens may be read off one slot. The head is trained with the link and kept in checkpoints; the wire goes without it.
(After gist tokens, Mu et al. 2023, and the first implementation's head.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Sent
from latentwire.objectives.vectors import apart
from latentwire.receivers import Receiver


@ObjectiveConfig.register_subclass("gist-head")
@dataclass
class GistHeadConfig(ObjectiveConfig):
    """tokens: how many of the passage's first are rebuilt. width: of query, key and value. mse: weight of the squared
    distance beside 1 less the cosine, in units of the embeddings' mean square."""

    tokens: int = 16
    width: int = 64
    mse: float = 1.0

    def build(self) -> GistHead:
        for name in ("tokens", "width"):
            if getattr(self, name) < 1:
                raise UserError(f"gist-head.{name} must be at least 1, not {getattr(self, name)}")
        if self.mse < 0:
            raise UserError(f"gist-head.mse is a weight of at least 0, not {self.mse}")
        return GistHead(self)


class GistHead(Objective):
    role = "passage"
    cosine = True
    config: GistHeadConfig

    def fit(self, link: nn.Module, width: int, receiver: Receiver, encoder: nn.Module) -> Head:
        return Head(self.config.tokens, self.config.width, width, receiver.geometry.width)

    def passage(self, sent: Sent, own: nn.Module | None) -> tuple[Tensor, dict[str, Tensor]]:
        assert own is not None, "the step hands every objective its own module"
        few = min(self.config.tokens, sent.ids_BT.shape[1])
        # the head gives unit scale, whatever the receiver's
        guess_BTE = own(sent.slots_BSE, sent.mask_BS)[:, :few] * sent.token_rms
        return apart(guess_BTE, sent.tokens_BTE[:, :few], sent.token_mask_BT[:, :few], self.config.mse, sent.token_rms)


class Head(nn.Module):
    """Slots [B, S, slot width] → guesses [B, tokens, E] of unit scale."""

    def __init__(self, tokens: int, width: int, slot_width: int, embedding_width: int) -> None:
        super().__init__()
        self.query_TW = nn.Parameter(torch.randn(tokens, width))
        self.norm = nn.LayerNorm(slot_width)
        self.key_value = nn.Linear(slot_width, 2 * width)
        self.out = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, embedding_width)
        )

    def forward(self, slots_BSE: Tensor, mask_BS: Tensor) -> Tensor:
        k_BSW, v_BSW = self.key_value(self.norm(slots_BSE)).chunk(2, -1)
        query_BTW = self.query_TW.expand(len(slots_BSE), -1, -1)
        found_BTW = F.scaled_dot_product_attention(query_BTW, k_BSW, v_BSW, attn_mask=mask_BS[:, None])
        return self.out(query_BTW + found_BTW)
