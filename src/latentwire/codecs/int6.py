"""Six bits in groups of 32 with a float16 scale each: 6.5 bits a value, 2.2 % of error on normal values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire.codecs.base import Codec, even, group_count, rescaled, scale_bytes, ungrouped

MOST = 31
"""The outermost code; with as many below zero, one of the 64 codes is left over, and a zero stays a zero."""


@Codec.register_subclass("int6")
@dataclass
class Int6(Codec):
    """Payload: scales [M, G] float16, then codes + 31 of all latents, four to three bytes: six bits each, the
    first in the lowest, little-endian. What fills up the last three bytes is left out where it fills whole bytes."""

    number = 4
    bits = 6

    def nbytes(self, m: int, d: int) -> int:
        return 2 * m * group_count(d) + (6 * m * d + 7) // 8

    def pack(self, z_MD: Tensor) -> bytes:
        codes, scale_MG = even(z_MD, MOST)
        six = (ungrouped(codes, z_MD.shape[-1]) + MOST).to(torch.int32).numpy().ravel()
        four = np.append(six, np.zeros(-len(six) % 4, np.int32)).reshape(-1, 4)
        word = (four << np.array([0, 6, 12, 18], np.int32)).sum(1, dtype=np.int32)
        three = (word[:, None] >> np.array([0, 8, 16], np.int32) & 255).astype(np.uint8)
        return scale_bytes(scale_MG) + three.tobytes()[: (6 * len(six) + 7) // 8]

    def unpack(self, data: bytes | memoryview, m: int, d: int) -> Tensor:
        read = np.frombuffer(data, np.uint8, offset=2 * m * group_count(d)).astype(np.int32)
        three = np.append(read, np.zeros(-len(read) % 3, np.int32)).reshape(-1, 3)
        word = (three << np.array([0, 8, 16], np.int32)).sum(1, dtype=np.int32)
        codes = (word[:, None] >> np.array([0, 6, 12, 18], np.int32) & 63).ravel()[: m * d].reshape(m, d)
        return rescaled(codes.astype(np.float32) - MOST, data, m, d)

    def fake_quantise(self, z_BMD: Tensor) -> Tensor:
        codes, scale = even(z_BMD, MOST)
        return ungrouped(codes * scale[..., None], z_BMD.shape[-1])
