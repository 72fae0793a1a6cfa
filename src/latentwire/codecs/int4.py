"""Four bits in groups of 32 with a float16 scale each: 4.5 bits a value, 8.2 % of error on normally distributed values.

Sixteen codes are -8 … 7, so a scale has a sign, which gives the -8 to the value of largest magnitude (as gguf's Q4_0
does: 8.6 %). A few clipped scales are tried for each group, each refined by least squares, and the best is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire.codecs.base import Codec, group_count, grouped, half, rescaled, scale_bytes, steps, ungrouped

CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Shares of a group's largest magnitude that its scale is tried for."""


@Codec.register_subclass("int4")
@dataclass
class Int4(Codec):
    """Payload: scales [M, G] float16, then codes + 8 of all latents, two to a byte, the first in the low half."""

    number = 3
    bits = 4

    def nbytes(self, m: int, d: int) -> int:
        return 2 * m * group_count(d) + (m * d + 1) // 2

    def pack(self, z_MD: Tensor) -> bytes:
        codes, scale_MG = self._codes(z_MD)
        nibbles = (ungrouped(codes, z_MD.shape[-1]) + 8).to(torch.uint8).numpy().ravel()
        nibbles = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8))
        return scale_bytes(scale_MG) + (nibbles[::2] | nibbles[1::2] << 4).tobytes()

    def unpack(self, data: bytes | memoryview, m: int, d: int) -> Tensor:
        both = np.frombuffer(data, np.uint8, offset=2 * m * group_count(d))
        codes = np.stack([both & 15, both >> 4], -1).ravel()[: m * d].reshape(m, d)
        return rescaled(codes.astype(np.float32) - 8, data, m, d)

    def fake_quantise(self, z_BMD: Tensor) -> Tensor:
        codes, scale = self._codes(z_BMD)
        return ungrouped(codes * scale[..., None], z_BMD.shape[-1])

    @staticmethod
    def _codes(z: Tensor) -> tuple[Tensor, Tensor]:
        x = grouped(z)
        extreme = x.gather(-1, x.abs().argmax(-1, keepdim=True)).squeeze(-1)
        codes, scale, error = _fit(x, extreme)
        for clip in CLIPS[1:]:
            other_codes, other_scale, other_error = _fit(x, extreme * clip)
            better = other_error < error
            error = torch.where(better, other_error, error)
            scale = torch.where(better, other_scale, scale)
            codes = torch.where(better[..., None], other_codes, codes)
        return codes, scale


def _fit(x: Tensor, reach: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and squared errors of groups whose code -8 stands for ``reach``."""
    codes = steps(x, half(reach / -8), -8, 7)
    # Least squares: the scale that fits these codes best. The codes stay, and with them one -8 in every group; it is by
    # this that packing what was unpacked finds the same scale again.
    weight = codes.square().sum(-1)
    scale = half((x * codes).sum(-1) / weight.masked_fill(weight == 0, 1))
    return codes, scale, (codes * scale[..., None] - x).square().sum(-1)
