"""A start for codes of parts: which directions of a latent tell the tokens of its span, in closed form.

Latents say linearly what token embeddings say, so a least-squares map brings a latent back to the embeddings of its
tokens, with noise. Linear discriminants (Fisher 1936; Rao 1948) of these estimates are the few values in which tokens
are furthest apart for that noise. In 64 values a token the nearest token is the right one for 96 of 100 tokens behind
the shipped wire's latents at 4×.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentwire.errors import UserError

LEAST = 256
"""Latents without which nothing can be solved for."""


@dataclass
class Apart:
    """down_RD, shift_R: a latent's parts behind one another, R = parts * width. book_CR: one part's vectors, the values
    that tell most apart first."""

    down_RD: Tensor
    shift_R: Tensor
    book_CR: Tensor


def solve(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Least squares of y by x, each value of x held down by ``ridge`` rows of its own."""
    return torch.linalg.solve(x.mT @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device), x.mT @ y)


def begin_apart(z_ND: Tensor, ids_NP: Tensor, table_VE: Tensor, width: int, size: int) -> Apart:
    """Parts and book from latents, the tokens that each stands for (-1: none, such latents are left out) and the
    tokens' embeddings. width: values of a part. size: vectors of the book: one for each token as far as there is room,
    the more frequent ones first, then parts of the latents themselves. UserError: there are too few latents, or a part
    is wider than an embedding."""
    whole_N = (ids_NP >= 0).all(1)
    z, ids_NP = z_ND[whole_N].double(), ids_NP[whole_N]
    if len(z) < LEAST:
        raise UserError(f"codes of parts begin from {LEAST} latents of whole spans at least, here are {len(z)}")
    table = table_VE.double()
    table = (table - table.mean(0)) / table.std()
    N, P, E = *ids_NP.shape, table.shape[1]
    if width > E:
        raise UserError(f"codes.read is at most the width of the encoder's token embeddings, {E}, not {width}")
    x = torch.cat([z, torch.ones_like(z[:, :1])], 1)
    told = table[ids_NP].flatten(0, 1)
    to_tokens = solve(x, told.view(N, P * E), 10.0)
    guess = (x @ to_tokens).view(N * P, E)
    # estimates shrink towards the mean: where each token is to be looked for
    shrink = solve(told, guess, 10.0)
    noise = guess - told @ shrink
    eye = torch.eye(E, dtype=z.dtype, device=z.device)
    within = noise.mT @ noise / len(noise) + 1e-4 * eye
    many_V = torch.bincount(ids_NP.flatten(), minlength=len(table)).to(z.dtype)
    seen = table @ shrink
    between = (seen * many_V[:, None]).mT @ seen / many_V.sum()
    unit = torch.linalg.inv(torch.linalg.cholesky(within))
    _, axes = torch.linalg.eigh(unit @ between @ unit.mT)
    best_EW = unit.mT @ axes[:, -width:].flip(1)
    down = to_tokens.view(-1, P, E) @ best_EW
    down = down.flatten(1)
    first_C = many_V.argsort(descending=True, stable=True)[:size]
    book = [seen[first_C] @ best_EW]
    if size > len(first_C):
        parts = (x @ down).view(N * P, width)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(len(parts), (size - len(first_C),), generator=generator)
        book.append(parts[drawn.to(parts.device)])
    return Apart(down[:-1].mT.float(), down[-1].float(), torch.cat(book).float())
