"""Where latents stand in a piece of text: one for every ``ratio`` tokens, or a fixed number whatever the length.

Fixed: a text has as many latents as a full window has, M = window / ratio, each for one of M equal spans, so all
packets of a ratio have one size. A text of several pieces shares its M latents among them: they are not M for each
piece. Only a text of more pieces than M has more: one for each piece, because nothing is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def piece_numbers(owner_P: np.ndarray) -> np.ndarray:
    """int32 [P, 2]: which piece of its text each is (from 0), and how many pieces that text has."""
    many_N = np.bincount(owner_P)
    first_N = np.cumsum(many_N) - many_N
    return np.stack([np.arange(len(owner_P)) - first_N[owner_P], many_N[owner_P]], 1).astype(np.int32)


def quota(piece_B2: Tensor, total: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of a text's ``total`` latents: the first one of each piece and how many it has, and how many the text has in all
    (``total``, or one for each piece where there are more pieces), int64 [B] each."""
    number_B, many_B = piece_B2.long().unbind(1)
    total_B = many_B.clamp_min(total)
    first_B, behind_B = ((n * total_B).div(many_B, rounding_mode="floor") for n in (number_B, number_B + 1))
    return first_B, behind_B - first_B, total_B


@dataclass(frozen=True)
class Slots:
    """Latents of a batch of pieces. mask_BM: bool, which are there. middle_BM: float, where each stands, in tokens of
    its piece. within_BM: int64, its number in its group."""

    mask_BM: Tensor
    middle_BM: Tensor
    within_BM: Tensor


def slots_of(batch: dict[str, Tensor], T: int, ratio: int, window: int = 0, offsets_P: Tensor | None = None) -> Slots:
    """Latents of pieces of ``count`` int [B] tokens, padded to T. window: of an encoder whose M is fixed (0: it is
    not); ``batch`` has ``piece`` of :func:`piece_numbers` then.

    offsets_P: latents may come in groups of P; where in its group each stands then, as a share of the group's tokens.
    """
    count_B = batch["count"].long()
    device = count_B.device
    P = 1 if offsets_P is None else len(offsets_P)
    M = -(-window // ratio) if window else -(-T // ratio)
    number_BM = torch.arange(M, device=device).expand(len(count_B), -1)
    if window:
        first_B, held_B, total_B = quota(batch["piece"], M)
        mask_BM = number_BM < held_B[:, None]
        number_BM = number_BM + first_B[:, None]
    else:
        mask_BM = number_BM < (-(-count_B // ratio))[:, None]
    within_BM = number_BM % P
    place_BM = number_BM + 0.5
    if offsets_P is not None:
        place_BM = number_BM - within_BM + P * offsets_P[within_BM]
    if window:
        # a share of the text first, then of the piece
        piece_BM, many_BM = (column[:, None] for column in batch["piece"].unbind(1))
        middle_BM = (place_BM / total_B[:, None] * many_BM - piece_BM) * count_B[:, None]
    else:
        middle_BM = place_BM * ratio
    if P > 1:  # the latents of a group stand far apart, and the last group may be longer than what is left of the text
        middle_BM = torch.minimum(middle_BM.clamp_min(0.5), count_B[:, None] - 0.5)
    return Slots(mask_BM, middle_BM, within_BM)


def stretched(x_BTC: Tensor, count_B: Tensor, places_B: Tensor, width: int) -> Tensor:
    """``count_B`` tokens of each row as ``places_B`` places, [B, width, C], zero behind them.

    A place is the mean of the tokens that it touches (adaptive average pooling): fewer tokens than places are repeated,
    more are averaged, none is left out.
    """
    place_W = torch.arange(width, device=x_BTC.device)
    places_B1, count_B1 = places_B[:, None], count_B[:, None]
    first_BW = place_W * count_B1 // places_B1
    last_BW = -(-(place_W + 1) * count_B1 // places_B1)
    token_T = torch.arange(x_BTC.shape[1], device=x_BTC.device)
    touched_BWT = (token_T >= first_BW[..., None]) & (token_T < last_BW[..., None])
    touched_BWT = touched_BWT & (place_W < places_B1)[..., None]
    share_BWT = touched_BWT / touched_BWT.sum(-1, keepdim=True).clamp_min(1)
    return share_BWT.to(x_BTC.dtype) @ x_BTC
