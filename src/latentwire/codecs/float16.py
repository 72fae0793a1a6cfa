"""Sixteen bits: IEEE half precision, the reference that coarser codecs are measured against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire.codecs.base import Codec, check_finite


@Codec.register_subclass("float16")
@dataclass
class Float16(Codec):
    """Two bytes a value, little-endian; values beyond ±65,504 are brought to it."""

    number = 1
    bits = 16

    def nbytes(self, m: int, d: int) -> int:
        return 2 * m * d

    def encode(self, z_MD: Tensor) -> bytes:
        check_finite(z_MD)
        return self._half(z_MD).cpu().numpy().astype("<f2").tobytes()

    def decode(self, data: bytes, m: int, d: int) -> Tensor:
        return torch.from_numpy(np.frombuffer(data, "<f2", m * d).astype(np.float32)).reshape(m, d)

    def fake_quantise(self, z_BMD: Tensor) -> Tensor:
        return self._half(z_BMD).float()

    @staticmethod
    def _half(z: Tensor) -> Tensor:
        return z.float().clamp(-65504.0, 65504.0).half()
