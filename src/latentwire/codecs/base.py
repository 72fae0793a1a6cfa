"""What every codec is, and what those of integers share: groups of 32 values along D with a float16 scale each."""

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

HALF_MAX = 65504.0
"""Largest finite float16."""


@dataclass
class Codec(Choice):
    """number: stands in every packet, never reused. bits: per value, scales not counted (``nbytes`` counts them).

    A codec fills in :meth:`nbytes`, :meth:`pack`, :meth:`unpack` and :meth:`fake_quantise`.
    """

    number: ClassVar[int]
    bits: ClassVar[int]

    @property
    def name(self) -> str:
        """The name it is registered by."""
        return next(name for name, kind in Codec.known().items() if kind is type(self))

    def nbytes(self, m: int, d: int) -> int:
        """Exact bytes of ``m`` latents of width ``d``."""
        raise NotImplementedError

    def pack(self, z_MD: Tensor) -> bytes:
        """Bytes of finite float32 values on the CPU."""
        raise NotImplementedError

    def unpack(self, data: bytes | memoryview, m: int, d: int) -> Tensor:
        """Float32 values [M, D] of exactly ``nbytes(m, d)`` bytes."""
        raise NotImplementedError

    def fake_quantise(self, z_BMD: Tensor) -> Tensor:
        """What is left of a batch after the round trip, float32 on its device, without making bytes.

        Equal to ``decode(encode(z))`` of each row. No check of the values: one that is not a number stays in its group.
        """
        raise NotImplementedError

    def encode(self, z_MD: Tensor) -> bytes:
        """Bytes of latents [M, D] on any device. UserError: values that are not finite numbers."""
        if z_MD.ndim != 2:
            raise ValueError(f"a codec takes latents [M, D] of one text, got shape {tuple(z_MD.shape)}")
        z_MD = z_MD.detach().to("cpu", torch.float32)
        if not torch.isfinite(z_MD).all():
            bad = int((~torch.isfinite(z_MD)).sum())
            raise UserError(
                f"{bad} of {z_MD.numel()} latent values are infinite or not a number, so they cannot be packed; "
                "the wire's weights or its input are broken"
            )
        return self.pack(z_MD)

    def decode(self, data: bytes | memoryview, m: int, d: int) -> Tensor:
        """Float32 latents [M, D]. UserError: not ``nbytes(m, d)`` bytes."""
        if len(data) != self.nbytes(m, d):
            raise UserError(f"{m} x {d} values of {self.name} take {self.nbytes(m, d)} bytes, not {len(data)}")
        # an infinite scale makes values that are no numbers: the packet refuses them, with words of its own
        with np.errstate(invalid="ignore"):
            return self.unpack(data, m, d)


def by_bits(bits: float) -> Codec:
    """The codec of that many bits per value."""
    return _find("bits", bits, "give one of them as bits")


def by_number(number: int) -> Codec:
    """The codec that a packet names."""
    return _find("number", number, "the packet is of a newer LatentWire, or damaged")


def _find(field: str, value: float, advice: str) -> Codec:
    for codec in Codec.known().values():
        if getattr(codec, field) == value:
            return codec()
    known = ", ".join(str(getattr(codec, field)) for codec in Codec.known().values())
    raise UserError(f"there is no codec of {field} {value}; there are {known}: {advice}")


def group_count(d: int) -> int:
    """Groups of a latent of width ``d``."""
    return -(-d // GROUP)


def grouped(z: Tensor) -> Tensor:
    """[..., D] → float32 [..., G, GROUP], the last group filled up with zeros."""
    return torch.nn.functional.pad(z.float(), (0, -z.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))


def ungrouped(x: Tensor, d: int) -> Tensor:
    """[..., G, GROUP] → [..., D], without what filled up the last group."""
    return x.flatten(-2)[..., :d]


def half(scale: Tensor) -> Tensor:
    """A scale as the float16 it is stored as, at most the largest finite one, back in float32."""
    return scale.clamp(-HALF_MAX, HALF_MAX).half().float()


def steps(x_G: Tensor, scale_G: Tensor, low: int, high: int) -> Tensor:
    """Nearest integer multiples of each group's scale, from ``low`` to ``high``; of a scale of 0 they are 0."""
    # a division by inf gives 0: no group needs a branch
    return (x_G / scale_G.masked_fill(scale_G == 0, torch.inf)[..., None]).round().clamp(low, high)


def even(z: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Codes of -most … most [..., G, GROUP] and scales [..., G]; each group's largest value gets one of them."""
    x = grouped(z)
    exact = x.abs().amax(-1) / most
    scale = half(exact)
    # float16 is coarse below its smallest normal number: a scale rounded down there would clip up to a quarter of
    # the largest value, the next number up clips nothing
    up = half(torch.nextafter(scale.half(), torch.full_like(scale, torch.inf).half()).float())
    scale = torch.where((scale < exact) & (exact < 2**-14), up, scale)
    return steps(x, scale, -most, most), scale


def scale_bytes(scale_MG: Tensor) -> bytes:
    """Scales as little-endian float16."""
    return scale_MG.half().numpy().astype("<f2").tobytes()


def rescaled(codes_MD: np.ndarray, data: bytes | memoryview, m: int, d: int) -> Tensor:
    """Codes [M, D] times the scales at the beginning of ``data``."""
    scale_MG = np.frombuffer(data, "<f2", m * group_count(d)).astype(np.float32).reshape(m, -1)
    return torch.from_numpy(codes_MD * scale_MG.repeat(GROUP, 1)[:, :d])
