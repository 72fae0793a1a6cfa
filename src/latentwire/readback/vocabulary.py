"""A receiver's input embeddings, and which of them lie nearest to a vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from latentwire.receivers import Receiver

CHUNK = 2048
"""Vectors that are compared with a whole vocabulary at once."""


@torch.no_grad()
def vocabulary(receiver: Receiver) -> Tensor:
    """Embeddings [V, E] of all tokens that the tokenizer has, float32, as the receiver's first layer gets them."""
    # checkpoints have spare rows behind the last token, which were never trained
    count = min(receiver.geometry.vocab, len(receiver.tokenizer))
    return receiver.embed(torch.arange(count, device=receiver.device)[None])[0].float()


def nearest(vectors_NE: Tensor, words_VE: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and ids [N, k] of the words that are nearest to each vector by cosine, the nearest first."""
    unit_EV = F.normalize(words_VE, dim=-1).mT
    found = [(F.normalize(part, dim=-1) @ unit_EV).topk(min(k, len(words_VE)), -1) for part in vectors_NE.split(CHUNK)]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])
