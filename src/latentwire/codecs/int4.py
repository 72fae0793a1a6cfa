"""Four bits in groups of 32 with a float16 scale each: 4.5 bits a value.

The scale of a group is the best of a few: clipping its largest values a little costs less than coarse steps for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire.codecs.base import (
    GROUP,
    Codec,
    check_finite,
    group_count,
    grouped,
    half_scale,
    scale_bytes,
    scales_of,
    ungrouped,
)

CLIPS = (1.0, 0.93, 0.86, 0.8, 0.74)


@Codec.register_subclass("int4")
@dataclass
class Int4(Codec):
    """Payload: scales [M, G] float16, then codes + 8 [M, G * 32], two to a byte, the first in the low half."""

    number = 3
    bits = 4

    def nbytes(self, m: int, d: int) -> int:
        return m * group_count(d) * (2 + GROUP // 2)

    def encode(self, z_MD: Tensor) -> bytes:
        check_finite(z_MD)
        codes, scale = self._codes(z_MD)
        pairs = (codes + 8).to(torch.uint8).flatten().reshape(-1, 2).cpu().numpy()
        return scale_bytes(scale) + (pairs[:, 0] | (pairs[:, 1] << 4)).astype(np.uint8).tobytes()

    def decode(self, data: bytes, m: int, d: int) -> Tensor:
        groups = group_count(d)
        scale = scales_of(data, m, groups)
        both = np.frombuffer(data, np.uint8, m * groups * GROUP // 2, 2 * m * groups)
        codes = np.stack([both & 15, both >> 4], -1).astype(np.float32) - 8
        return ungrouped(torch.from_numpy(codes).reshape(m, groups, GROUP) * scale[..., None], d)

    def fake_quantise(self, z_BMD: Tensor) -> Tensor:
        codes, scale = self._codes(z_BMD)
        return ungrouped(codes * scale[..., None], z_BMD.shape[-1])

    @staticmethod
    def _codes(z: Tensor) -> tuple[Tensor, Tensor]:
        x = grouped(z)
        top = x.abs().amax(-1)
        best_error = torch.full_like(top, float("inf"))
        best_scale, best_codes = torch.zeros_like(top), torch.zeros_like(x)
        for clip in CLIPS:
            scale = half_scale(top * clip / 7)
            codes = (x / scale.clamp_min(1e-12)[..., None]).round().clamp(-8, 7)
            error = (codes * scale[..., None] - x).pow(2).sum(-1)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_scale = torch.where(better, scale, best_scale)
            best_codes = torch.where(better[..., None], codes, best_codes)
        return best_codes, best_scale
