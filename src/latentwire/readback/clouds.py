"""Many vectors in a few figures: how long they are, what lies next to them, and in how many directions they spread."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FIRST = (1, 8, 64)
"""Of how many of the widest directions the share of the variance is told."""


def norms(vectors_NE: Tensor) -> dict[str, float]:
    """Quantiles of the vectors' lengths."""
    return quantiles(vectors_NE.float().norm(dim=-1))


def quantiles(values_N: Tensor) -> dict[str, float]:
    """By name: ``5 %``, ``25 %`` …"""
    found = values_N.float().quantile(torch.tensor(QUANTILES, device=values_N.device)).tolist()
    return {f"{100 * q:.0f} %": value for q, value in zip(QUANTILES, found, strict=True)}


def spectrum(vectors_NE: Tensor) -> dict[str, Any]:
    """Of the vectors' covariance: ``rank``, the effective one (e to the entropy of the eigenvalues' shares, Roy and
    Vetterli 2007; at most N - 1 and E), and ``first``, the share of all variance in the first 1, 8, 64 directions."""
    off_NE = vectors_NE.double() - vectors_NE.double().mean(0)
    # of the smaller of the two products: their eigenvalues are the same but for zeros
    square = off_NE.mT @ off_NE if len(off_NE) > off_NE.shape[1] else off_NE @ off_NE.mT
    value_E = torch.linalg.eigvalsh(square).flip(0).clamp_min(0)
    total = float(value_E.sum())
    if total <= 0:  # one vector, or the same one again and again, spreads nowhere
        return {"rank": 0.0, "first": {str(k): 1.0 for k in FIRST}}
    share_E = value_E / total
    entropy = -float((share_E * share_E.clamp_min(1e-300).log()).sum())
    return {"rank": math.exp(entropy), "first": {str(k): float(share_E[:k].sum()) for k in FIRST}}


def beside(made_NE: Tensor, text_NE: Tensor) -> dict[str, float]:
    """How made vectors lie to those of a text. apart: the distance of their means; spread: how far made ones are from
    their own mean. Both in units of how far the text's are from theirs (root mean squares)."""
    made_NE, text_NE = made_NE.float(), text_NE.float()
    unit = float(deviation(text_NE)) or 1e-12  # a single vector is its own mean
    return {
        "apart": float((made_NE.mean(0) - text_NE.mean(0)).norm()) / unit,
        "spread": float(deviation(made_NE)) / unit,
    }


def deviation(vectors_NE: Tensor) -> Tensor:
    """Root mean square distance from the mean."""
    return (vectors_NE - vectors_NE.mean(0)).square().sum(-1).mean().sqrt()
