"""Which K/V positions of a prefix belong to which slot, and a prefix of which only some slots are seen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from latentwire.link import Link
    from latentwire.types import Prefix


def ways(link: Link, prefix: Prefix, head: int, S: int) -> int:
    """K/V positions of each of S slots: 1, or 2 where a slot is read in two ways; position p belongs to slot p % S.

    0: positions belong to the text as a whole (`coprocessor`), or there are none (`cross-attention`). head: positions
    of the layout's head, in front of them.
    """
    held, twice = link.injection.kv_positions(torch.tensor([S, 2 * S])).tolist()
    return held // S if twice == 2 * held and prefix.mask_BM.shape[1] == head + held else 0


def only(prefix: Prefix, head: int, first_B: Tensor, last_B: Tensor, S: int) -> Prefix:
    """The prefix as if of its S slots only those from ``first`` up to ``last`` had been sent (int64 [B] each)."""
    slot_P = torch.arange(prefix.mask_BM.shape[1] - head, device=prefix.mask_BM.device) % S
    seen_BP = (slot_P >= first_B[:, None]) & (slot_P < last_B[:, None])
    mask_BM = torch.cat([prefix.mask_BM[:, :head], prefix.mask_BM[:, head:] & seen_BP], 1)
    return replace(prefix, mask_BM=mask_BM)
