"""Rows of tokens read on top of one prefix, which do not see one another."""

from __future__ import annotations

import torch
from torch import Tensor

from latentwire.receivers.attention import own_causal
from latentwire.receivers.receiver import Receiver
from latentwire.types import Prefix


def row_states(receiver: Receiver, prefix: Prefix, ids_BRT: Tensor) -> Tensor:
    """States [B, R, T, E] of rows that share their passage's prefix and do not see one another."""
    B, R, T = ids_BRT.shape
    device = ids_BRT.device
    # padding inside a row needs no mask: it stands behind every target, where causality hides it
    causal = own_causal(torch.ones(1, T, dtype=torch.bool, device=device))[0]
    own = torch.block_diag(*[causal.float()] * R).bool()[None]
    positions = prefix.next_B[:, None, None] + torch.arange(T, device=device).expand(1, R, T)
    h = receiver.states(ids_BRT.reshape(B, R * T), positions_BT=positions.reshape(B, R * T), own_BTT=own, prefix=prefix)
    return h.reshape(B, R, T, -1)
