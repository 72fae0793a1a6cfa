"""UTF-8 bytes through a small transformer from scratch; learned queries gather them into latents.

The encoder of the first implementation, kept as the baseline that needs no pretrained model. There is no evidence that
an encoder trained from scratch competes with a pretrained one at a few billion tokens. Its unit of length is the byte:
``ratio`` is bytes per latent here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from latentwire.encoders.base import Encoder, EncoderConfig, Source, cut, fill
from latentwire.types import Latents


@EncoderConfig.register_subclass("byte")
@dataclass
class ByteEncoderConfig(EncoderConfig):
    """width, layers, heads: of the transformer. window: bytes of a piece."""

    chars: ClassVar[float] = 1.0

    ratios: tuple[int, ...] = (16,)
    window: int = 1024
    width: int = 256
    layers: int = 6
    heads: int = 4

    def build(self, assets: Path | None = None) -> ByteEncoder:
        return ByteEncoder(self)


class ByteEncoder(Encoder):
    """Bytes [B, T] → transformer → queries at the middle of each span attend to all bytes, gated → z [B, M, D]."""

    def __init__(self, config: ByteEncoderConfig) -> None:
        super().__init__()
        self.config: ByteEncoderConfig = config
        W = config.width
        self.embed = nn.Embedding(256, W)
        layer = nn.TransformerEncoderLayer(W, config.heads, 4 * W, dropout=0.0, activation="gelu", batch_first=True,
                                           norm_first=True)  # fmt: skip
        self.body = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.query = nn.Parameter(torch.randn(W) * 0.02)
        self.gather = nn.MultiheadAttention(W, config.heads, batch_first=True)
        self.gate = nn.Linear(W, W)
        self.out = nn.Linear(W, config.d_z)
        self.norm = nn.LayerNorm(config.d_z, elementwise_affine=False)

    def prepare(self, texts: list[str], width: int | None = None) -> Source:
        rows = [list(text.encode()) for text in texts]
        pieces, owner_P = cut(rows, self.config.window)
        ids = fill([rows[text][a:b] for text, a, b in pieces], width)
        return Source({"ids": ids, "count": fill([[b - a] for _, a, b in pieces], 1)[:, 0]}, owner_P, len(texts))

    def forward(self, batch: dict[str, Tensor], ratio: int) -> Latents:
        self.check_ratio(ratio)
        ids_BT, count_B = batch["ids"].long(), batch["count"].long()
        B, T = ids_BT.shape
        place_T = torch.arange(T, device=ids_BT.device)
        pad_BT = place_T >= count_B[:, None]
        wave_TW = sinusoid(place_T, self.config.width)  # ty: ignore[missing-attribute]
        x_BTW = self.body(self.embed(ids_BT) + wave_TW, src_key_padding_mask=pad_BT)
        M = -(-T // ratio)
        middle_M = (torch.arange(M, device=ids_BT.device) + 0.5) * ratio
        query_BMW = (self.query + sinusoid(middle_M, self.config.width)).expand(B, -1, -1)  # ty: ignore[missing-attribute]
        found_BMW, _ = self.gather(query_BMW, x_BTW + wave_TW, x_BTW, key_padding_mask=pad_BT, need_weights=False)
        z_BMD = self.out(found_BMW * torch.sigmoid(self.gate(query_BMW)))
        mask_BM = torch.arange(M, device=ids_BT.device) < (-(-count_B // ratio))[:, None]
        z_BMD = self.norm(z_BMD.float()) * mask_BM[..., None]
        return Latents(z_BMD, mask_BM, count_B, torch.full_like(count_B, ratio))

    def save_assets(self, directory: Path) -> None:
        """Nothing but weights: bytes need no tokenizer."""


def sinusoid(place_T: Tensor, width: int) -> Tensor:
    """Sine and cosine positions [T, width] (Vaswani et al. 2017); fractional places allowed."""
    rate = torch.exp(torch.arange(0, width, 2, device=place_T.device) * (-math.log(10_000.0) / width))
    angle = place_T[:, None].float() * rate
    return torch.cat([angle.sin(), angle.cos()], -1)[:, :width]
