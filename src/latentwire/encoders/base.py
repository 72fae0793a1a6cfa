"""What every encoder is: texts are prepared on the CPU once, and turned into latents in batches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentwire.config import Choice, encode
from latentwire.errors import UserError
from latentwire.receivers.attention import Layers
from latentwire.types import Latents


@dataclass(frozen=True)
class Source:
    """Texts made ready for an encoder, cut into pieces of at most its window.

    arrays: what the encoder's forward takes, each with the pieces first. owner_P: int64, which text a piece is of
    (pieces of a text follow one another). texts: how many texts there are.
    """

    arrays: dict[str, np.ndarray]
    owner_P: np.ndarray
    texts: int


@dataclass
class EncoderConfig(Choice):
    """Base of all encoder configs; ``build`` makes the module, from ``assets`` where a saved wire keeps them."""

    d_z: int = 256
    ratios: tuple[int, ...] = (4,)
    window: int = 256

    @property
    def chars(self) -> float:
        """Characters of English text in one unit of the window, a token here: a first guess for cutting passages."""
        return 4.3

    def build(self, assets: Path | None = None) -> Encoder:
        raise NotImplementedError


class Encoder(nn.Module):
    """Base of all encoders. ``z`` has zero mean and unit variance over D (a LayerNorm without parameters)."""

    config: EncoderConfig
    stacks: Sequence[Layers] = ()
    """Layers that training may compile."""
    receivers: Sequence[str] = ()
    """Names of receivers that have latents of their own in a packet, for :meth:`part`; mostly none."""

    @property
    def device(self) -> torch.device:
        """Where it computes. An encoder may have nothing but buffers: a fitted one has no parameters."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def prepare(self, texts: list[str], width: int | None = None) -> Source:
        """Tokenise texts and cut what is longer than the window into equal pieces. CPU only.

        width: pad every piece to this many tokens (training keeps one shape), by default to the longest.
        """
        raise NotImplementedError

    def reads(self) -> dict[str, Any]:
        """What :meth:`prepare` depends on: encoders that read alike share tokenised text."""
        return encode(self.config)

    def forward(self, batch: dict[str, Tensor], ratio: int) -> Latents:
        """Latents of prepared pieces; ``batch`` holds the arrays of :class:`Source` as tensors."""
        raise NotImplementedError

    def part(self, latents: Latents, receiver: str) -> Latents:
        """What of a packet's latents is for this receiver: all of them, but for encoders with private ones."""
        return latents

    def spelled(self, batch: dict[str, Tensor], ratio: int) -> tuple[Tensor, Tensor] | None:
        """The tokens that each latent of prepared pieces stands for, int64 [B, M, P] (-1: none), and the embeddings of
        all tokens [V, E]. None: its latents do not stand for tokens of a table."""
        return None

    def save_assets(self, directory: Path) -> None:
        """Write what ``build(assets)`` needs beside the weights (tokenizer, shape of the language model)."""
        raise NotImplementedError

    def check_ratio(self, ratio: int) -> None:
        """Refuse a ratio that the encoder was not made for."""
        if ratio not in self.config.ratios:
            known = ", ".join(map(str, self.config.ratios))
            raise UserError(f"this encoder was made for ratios {known}, not {ratio}; ask for one of them")

    def encode(self, source: Source, ratio: int, batch_size: int = 64) -> Latents:
        """Latents [texts, M, D] of prepared texts of any length: pieces are encoded in batches, then joined."""
        device = self.device
        parts = []
        for start in range(0, len(source.owner_P), batch_size):
            batch = {
                name: torch.from_numpy(np.ascontiguousarray(array[start : start + batch_size])).to(device)
                for name, array in source.arrays.items()
            }
            parts.append(self(batch, ratio))
        return join_pieces(parts, source, ratio)


def join_pieces(parts: list[Latents], source: Source, ratio: int) -> Latents:
    """Put the pieces of each text behind one another: a text of P pieces has the latents of all of them."""
    owners = torch.from_numpy(source.owner_P)
    z_NMD = nn.utils.rnn.pad_sequence([z for part in parts for z in part.z_BMD.unbind()], batch_first=True)
    if len(owners) == source.texts:
        mask = nn.utils.rnn.pad_sequence([m for part in parts for m in part.mask_BM.unbind()], batch_first=True)
        counts_B = torch.cat([part.source_B for part in parts])
        return Latents(z_NMD, mask, counts_B, torch.full_like(counts_B, ratio))
    kept = [z[m] for part in parts for z, m in zip(part.z_BMD, part.mask_BM, strict=True)]
    counts = torch.cat([part.source_B for part in parts])
    rows = [torch.cat([kept[p] for p in (owners == text).nonzero()[:, 0].tolist()]) for text in range(source.texts)]
    mask = nn.utils.rnn.pad_sequence([torch.ones(len(r), dtype=torch.bool, device=r.device) for r in rows], True)
    source_B = counts.new_zeros(source.texts).index_add_(0, owners.to(counts.device), counts)
    return Latents(nn.utils.rnn.pad_sequence(rows, True), mask, source_B, torch.full_like(source_B, ratio))


def cut(ids: list[list[int]], window: int, unit: int = 1) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    """Pieces ``(text, start, end)`` of at most ``window`` tokens, of nearly equal length, and their owners.

    unit: every piece but a text's last is a multiple of so many tokens (at most ``window``).
    """
    pieces: list[tuple[int, int, int]] = []
    for text, tokens in enumerate(ids):
        n = len(tokens)
        if n == 0:
            raise UserError(f"text {text} is empty; there is nothing to encode")
        units = -(-n // unit)
        count = -(-units // (window // unit))
        edges = [min(round(units * i / count) * unit, n) for i in range(count + 1)]
        pieces += [(text, a, b) for a, b in itertools.pairwise(edges)]
    return pieces, np.array([text for text, _, _ in pieces], dtype=np.int64)


def fill(rows: list[list[int]], width: int | None, value: int = 0) -> np.ndarray:
    """Ragged lists as an int32 array padded with ``value``; a row longer than ``width`` is a mistake of the caller."""
    longest = max(map(len, rows), default=1)
    if width is not None and longest > width:
        raise ValueError(f"a row has {longest} tokens, more than the fixed width {width}")
    array = np.full((len(rows), width or longest), value, dtype=np.int32)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return array
