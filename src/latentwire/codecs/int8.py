"""Eight bits in groups of 32 with a float16 scale each: 8.5 bits a value, about half a percent of error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire.codecs.base import Codec, even, group_count, rescaled, scale_bytes, ungrouped


@Codec.register_subclass("int8")
@dataclass
class Int8(Codec):
    """Payload: scales [M, G] float16, then codes [M, D] int8. The largest value of a group gets the code ±127."""

    number = 2
    bits = 8

    def nbytes(self, m: int, d: int) -> int:
        return m * (2 * group_count(d) + d)

    def pack(self, z_MD: Tensor) -> bytes:
        codes, scale_MG = even(z_MD, 127)
        return scale_bytes(scale_MG) + ungrouped(codes, z_MD.shape[-1]).to(torch.int8).numpy().tobytes()

    def unpack(self, data: bytes | memoryview, m: int, d: int) -> Tensor:
        codes_MD = np.frombuffer(data, np.int8, offset=2 * m * group_count(d)).reshape(m, d)
        return rescaled(codes_MD.astype(np.float32), data, m, d)

    def fake_quantise(self, z_BMD: Tensor) -> Tensor:
        codes, scale = even(z_BMD, 127)
        return ungrouped(codes * scale[..., None], z_BMD.shape[-1])
