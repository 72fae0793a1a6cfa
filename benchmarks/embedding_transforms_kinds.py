"""Ways of changing a receiver's input embeddings that ``embedding_transforms.py`` goes through, in families.

All but the statistics are a matter of the token alone, so they are tables of changed embeddings [V, E].
Nearness is by cosine, over the tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from latentwire.readback.vocabulary import nearest

Change = Callable[[Tensor, Tensor], Tensor]
"""Ids [B, T] and which of them are there → vectors [B, T, E] in place of their embeddings."""

SCALES = (0.25, 0.5, 2.0, 4.0)
NEIGHBOURS = (2, 4)
SHARES = (0.75, 0.5, 0.25, 0.0)
CODEBOOKS = (8192, 4096, 1024)


def families(words_VE: Tensor) -> dict[str, dict[str, Callable[[], Change]]]:
    """What makes each change of each family for a vocabulary's embeddings: making some of them takes seconds."""
    most = len(words_VE)
    return {
        "scale": {f"×{scale:g}": partial(looked_up, partial(scaled, words_VE, scale)) for scale in SCALES},
        "statistics": {
            "of the vocabulary": partial(standardised, words_VE, words_VE.mean(0), words_VE.std(0, correction=0)),
            "unit, at the vocabulary's RMS": partial(standardised, words_VE, 0.0, words_VE.square().mean().sqrt()),
            "unit": partial(standardised, words_VE, 0.0, 1.0),
        },
        "nearest": {f"{k}": partial(looked_up, partial(neighbours, words_VE, k)) for k in NEIGHBOURS},
        "anchor": {f"{s:.0%} of the offset": partial(looked_up, partial(anchored, words_VE, s)) for s in SHARES},
        "codebook": {f"{n:,}": partial(looked_up, partial(quantised, words_VE, n)) for n in CODEBOOKS if n < most},
    }


def looked_up(made: Callable[[], Tensor]) -> Change:
    """Rows of a table of changed embeddings."""
    table_VE = made()
    return lambda ids_BT, mask_BT: F.embedding(ids_BT, table_VE)


def standardised(words_VE: Tensor, mean_E: Tensor | float, dev_E: Tensor | float) -> Change:
    """Each channel, over the tokens of a text, to this mean and deviation."""

    def change(ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        x_BTE, there_BT1 = F.embedding(ids_BT, words_VE), mask_BT[..., None]
        count_B11 = there_BT1.sum(1, keepdim=True).clamp_min(1)
        off_BTE = x_BTE - (x_BTE * there_BT1).sum(1, keepdim=True) / count_B11
        own_B1E = ((off_BTE.square() * there_BT1).sum(1, keepdim=True) / count_B11).sqrt()
        # a text of one token has no deviation
        return off_BTE / own_B1E.clamp_min(1e-6) * dev_E + mean_E

    return change


def scaled(words_VE: Tensor, scale: float) -> Tensor:
    """All as many times as long."""
    return words_VE * scale


def neighbours(words_VE: Tensor, k: int) -> Tensor:
    """The mean of the ``k`` nearest embeddings, its own among them."""
    return words_VE[nearest(words_VE, words_VE, k)[1]].mean(1)


def anchored(words_VE: Tensor, share: float) -> Tensor:
    """The nearest other token's embedding (a token is nearest to itself), and of the way from there a ``share``."""
    ids_V2 = nearest(words_VE, words_VE, 2)[1]
    own_V = torch.arange(len(words_VE), device=words_VE.device)
    # of two equal embeddings either may come first
    other_VE = words_VE[torch.where(ids_V2[:, 0] == own_V, ids_V2[:, 1], ids_V2[:, 0])]
    return torch.lerp(other_VE, words_VE, share)


def quantised(words_VE: Tensor, size: int, steps: int = 10, seed: int = 0) -> Tensor:
    """Each embedding as the centre of its cluster: k-means (Lloyd 1982), every token of the vocabulary counts once."""
    order = torch.randperm(len(words_VE), generator=torch.Generator().manual_seed(seed))
    centre_CE = words_VE[order[:size].to(words_VE.device)].clone()
    for _ in range(steps):
        distance_V, cluster_V = closest(words_VE, centre_CE)
        count_C = torch.bincount(cluster_V, minlength=size)
        sum_CE = torch.zeros_like(centre_CE).index_add_(0, cluster_V, words_VE)
        centre_CE = torch.where(count_C[:, None] > 0, sum_CE / count_C.clamp_min(1)[:, None], centre_CE)
        if empty := int((count_C == 0).sum()):  # begun anew at what is worst served
            centre_CE[count_C == 0] = words_VE[distance_V.topk(empty).indices]
    return centre_CE[closest(words_VE, centre_CE)[1]]


def closest(words_VE: Tensor, centre_CE: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance to the closest centre, and which it is, both [V]."""
    found = [torch.cdist(part, centre_CE).min(-1) for part in words_VE.split(2048)]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])
