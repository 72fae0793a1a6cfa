"""What every codec is, and the codes of values that all integer codecs share: groups of 32 with a scale each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from latentwire.config import Choice
from latentwire.errors import UserError

GROUP = 32
"""Values that share a scale; groups run along D, the last one of a latent may be shorter."""


@dataclass
class Codec(Choice):
    """number: stands in every packet, never reused. bits: per value, scales not counted (``nbytes`` counts them)."""

    number: ClassVar[int]
    bits: ClassVar[int]

    def nbytes(self, m: int, d: int) -> int:
        """Exact bytes of ``m`` latents of width ``d``."""
        raise NotImplementedError

    def encode(self, z_MD: Tensor) -> bytes:
        """Bytes of finite values [M, D]."""
        raise NotImplementedError

    def decode(self, data: bytes, m: int, d: int) -> Tensor:
        """Float32 values [M, D] of ``nbytes(m, d)`` bytes."""
        raise NotImplementedError

    def fake_quantise(self, z_BMD: Tensor) -> Tensor:
        """What a receiver gets back after the round trip, for a whole batch and without making bytes."""
        raise NotImplementedError


def by_bits(bits: int) -> Codec:
    """The codec of that many bits per value."""
    return _find("bits", bits, "quantise to one of them")


def by_number(number: int) -> Codec:
    """The codec that a packet names."""
    return _find("number", number, "the packet is of a newer version, or no packet")


def _find(field: str, value: int, advice: str) -> Codec:
    for codec in Codec.known().values():
        if getattr(codec, field) == value:
            return codec()
    known = ", ".join(str(getattr(codec, field)) for codec in Codec.known().values())
    raise UserError(f"there is no codec of {field} {value}; there are {known}: {advice}")


def check_finite(z: Tensor) -> None:
    """Refuse what would decode to nonsense."""
    if not torch.isfinite(z).all():
        raise UserError("latents hold values that are not numbers; they cannot be packed")


def grouped(z: Tensor) -> Tensor:
    """[..., D] → [..., G, GROUP], padded with zeros."""
    return torch.nn.functional.pad(z.float(), (0, -z.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))


def ungrouped(z: Tensor, d: int) -> Tensor:
    """[..., G, GROUP] → [..., D]."""
    return z.flatten(-2)[..., :d]


def half_scale(scale: Tensor) -> Tensor:
    """A scale as the float16 it is stored as (largest finite value at most), back in float32."""
    return scale.clamp_max(65504.0).half().float()


def scale_bytes(scale_MG: Tensor) -> bytes:
    """Scales as little-endian float16."""
    return scale_MG.half().cpu().numpy().astype("<f2").tobytes()


def scales_of(data: bytes, m: int, groups: int) -> Tensor:
    """Scales [M, G] float32 from the beginning of a payload."""
    return torch.from_numpy(np.frombuffer(data, "<f2", m * groups).astype(np.float32)).reshape(m, groups)


def group_count(d: int) -> int:
    """Groups of a latent of width ``d``."""
    return -(-d // GROUP)
