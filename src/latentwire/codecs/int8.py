"""Eight bits in groups of 32 with a float16 scale each: 8.5 bits a value, about half a percent of error."""

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


@Codec.register_subclass("int8")
@dataclass
class Int8(Codec):
    """Payload: scales [M, G] float16, then codes [M, G * 32] int8."""

    number = 2
    bits = 8

    def nbytes(self, m: int, d: int) -> int:
        return m * group_count(d) * (2 + GROUP)

    def encode(self, z_MD: Tensor) -> bytes:
        check_finite(z_MD)
        codes, scale = self._codes(z_MD)
        return scale_bytes(scale) + codes.to(torch.int8).cpu().numpy().tobytes()

    def decode(self, data: bytes, m: int, d: int) -> Tensor:
        groups = group_count(d)
        scale = scales_of(data, m, groups)
        codes = np.frombuffer(data, np.int8, m * groups * GROUP, 2 * m * groups).astype(np.float32)
        return ungrouped(torch.from_numpy(codes).reshape(m, groups, GROUP) * scale[..., None], d)

    def fake_quantise(self, z_BMD: Tensor) -> Tensor:
        codes, scale = self._codes(z_BMD)
        return ungrouped(codes * scale[..., None], z_BMD.shape[-1])

    @staticmethod
    def _codes(z: Tensor) -> tuple[Tensor, Tensor]:
        x = grouped(z)
        scale = half_scale(x.abs().amax(-1) / 127)
        return (x / scale.clamp_min(1e-12)[..., None]).round().clamp(-127, 127), scale
