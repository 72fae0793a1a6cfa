"""Sixteen bits: IEEE half precision, the reference that coarser codecs are measured against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire.codecs.base import HALF_MAX, Codec


@Codec.register_subclass("float16")
@dataclass
class Float16(Codec):
    """Two bytes a value, little-endian; values beyond ±65,504 are brought to it."""

    number = 1
    bits = 16

    def nbytes(self, m: int, d: int) -> int:
        return 2 * m * d

    def pack(self, z_MD: Tensor) -> bytes:
        return self._half(z_MD).numpy().astype("<f2").tobytes()

    def unpack(self, data: bytes | memoryview, m: int, d: int) -> Tensor:
        return torch.from_numpy(np.frombuffer(data, "<f2").astype(np.float32)).reshape(m, d)

    def fake_quantise(self, z_BMD: Tensor) -> Tensor:
        return self._half(z_BMD).float()

    @staticmethod
    def _half(z: Tensor) -> Tensor:
        return z.float().clamp(-HALF_MAX, HALF_MAX).half()
