"""What objectives on vectors share: which slot stands for which token, and how far vectors lie apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from latentwire.errors import UserError
from latentwire.objectives.base import Sent
from latentwire.receivers import Receiver


def same_width(name: str, width: int, receiver: Receiver) -> None:
    """UserError: slots are not as wide as the receiver's embeddings, so they cannot be compared."""
    if width != receiver.geometry.width:
        raise UserError(
            f"{name} compares slots with the embeddings of {receiver.name!r}, which are {receiver.geometry.width} "
            f"wide; the link's slots are {width} wide (injection.width). Leave one of the two out"
        )


def stands_for(sent: Sent) -> Tensor:
    """[B, T, S] float, 1 where a slot stands for a token: slots are spread evenly over the text. Rows of padding are 0.

    A product with it instead of an index: sums in a fixed order, and gradients too.
    """
    slots_B = sent.mask_BS.sum(-1)
    T, S = sent.ids_BT.shape[1], sent.mask_BS.shape[1]
    place_T = torch.arange(T, device=sent.ids_BT.device)
    slot_BT = (place_T * slots_B[:, None]) // sent.count_B[:, None].clamp_min(1)
    one_BTS = slot_BT[..., None] == torch.arange(S, device=sent.ids_BT.device)
    return (one_BTS & sent.token_mask_BT[..., None]).float()


def mean_where(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``x`` where ``mask`` is set; 0 where it never is."""
    return (x * mask).sum() / mask.sum().clamp_min(1)


def apart(guess: Tensor, goal: Tensor, mask: Tensor, mse: float, scale: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """1 less the cosine of vectors [..., E], plus ``mse`` times their squared distance per channel in units of
    ``scale`` squared, both as means over ``mask`` [...]; and the cosine as a figure."""
    cosine = mean_where(F.cosine_similarity(guess, goal, -1), mask)
    squared = mean_where((guess - goal).square().mean(-1), mask) / scale.square().clamp_min(1e-12)
    return 1 - cosine + mse * squared, {"cosine": cosine.detach()}
