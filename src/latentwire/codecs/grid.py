"""Codes on a grid: a latent is led to a few values from -1 to 1, each rounded to one of ``levels`` (finite scalar
quantisation, Mentzer et al. 2023). With four levels a code, which is a byte, holds four values.

There are no books that could die, nothing moves without a gradient, so several processes may learn it and runs have a
mean. The way there and back has a hidden layer or two: a latent spreads what it says over hundreds of values, and a few
dozen coarse ones hold it only if they may be any function of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad

from latentwire.codecs.codes import Codes, CodesConfig
from latentwire.errors import UserError

LEVELS = (2, 4, 16, 256)


@CodesConfig.register_subclass("grid")
@dataclass
class GridConfig(CodesConfig):
    """levels: of each value, 2, 4, 16 or 256, so that a byte holds a whole number of them. hidden: width of the layers
    on the way there and back. commit: weight of the distance between latents and what is read for them, as a share of
    the latents' mean square."""

    levels: int = 4
    hidden: int = 1024
    commit: float = 1.0

    def check(self) -> None:
        super().check()
        if self.levels not in LEVELS:
            raise UserError(f"codes.levels is {', '.join(map(str, LEVELS[:-1]))} or {LEVELS[-1]}, not {self.levels}")
        if self.hidden < 1:
            raise UserError(f"codes.hidden is a width of at least 1, not {self.hidden}")

    def build(self, d_z: int) -> GridCodes:
        return GridCodes(self, d_z)


class GridCodes(Codes):
    """K codes of P values each: value p of a code is its p-th digit to the base of ``levels``, from the least on.
    Values of codes that are not read are 0, between the levels."""

    config: GridConfig

    def __init__(self, config: GridConfig, d_z: int) -> None:
        super().__init__(config, d_z)
        self.per_code = 8 // (config.levels.bit_length() - 1)
        self.width, H = config.stages * self.per_code, config.hidden
        self.down, self.up = (
            nn.Sequential(nn.Linear(a, H), nn.GELU(), nn.Linear(H, H), nn.GELU(), nn.Linear(H, b))
            for a, b in ((d_z, self.width), (self.width, d_z))
        )

    def narrow(self, z: Tensor) -> Tensor:
        """Values from -1 to 1, float32 [..., W], of latents [..., D]."""
        with torch.autocast(z.device.type, enabled=False):
            return torch.tanh(self.down(z.float()))

    def widen(self, told: Tensor) -> Tensor:
        """Latents float32 [..., D] of values [..., W], with mean 0 and spread 1 as an encoder's."""
        with torch.autocast(told.device.type, enabled=False):
            return layer_norm(self.up(told.float()), (self.d_z,))

    def digits(self, u: Tensor) -> Tensor:
        """The nearest levels' numbers from 0, float, of values from -1 to 1."""
        return ((u + 1) * (self.config.levels - 1) / 2).round()

    def values(self, digits: Tensor) -> Tensor:
        """Values from -1 to 1 of the levels' numbers."""
        return digits * 2 / (self.config.levels - 1) - 1

    def places(self, at: Tensor) -> Tensor:
        """What each of a code's digits counts, int64 [P], on the device of ``at``."""
        return self.config.levels ** torch.arange(self.per_code, device=at.device)

    @torch.no_grad()
    def codes(self, z: Tensor, stages: int) -> Tensor:
        digits = self.digits(self.narrow(z))[..., : self.stages(stages) * self.per_code].long()
        return (digits.unflatten(-1, (stages, self.per_code)) * self.places(z)).sum(-1).to(torch.uint8)

    @torch.no_grad()
    def vectors(self, codes: Tensor, mask: Tensor | None = None) -> Tensor:
        self.stages(codes.shape[-1])
        digits = (codes.long()[..., None] // self.places(codes) % self.config.levels).flatten(-2)
        told = self.values(digits.float())
        return self.widen(pad(told, (0, self.width - told.shape[-1])))

    def forward(self, z_BMD: Tensor, mask_BM: Tensor, stages: int) -> tuple[Tensor, Tensor]:
        """As in the base class: the gradient goes through the rounding as if there were none. The distance, a share of
        the latents' mean square, draws what is read towards the latents, which stand still for it as a goal."""
        u_BMW = self.narrow(z_BMD)
        told_BMW = u_BMW + (self.values(self.digits(u_BMW)) - u_BMW).detach()
        read_W = torch.arange(self.width, device=u_BMW.device) < self.stages(stages) * self.per_code
        there_BM1, z = mask_BM[..., None].float(), z_BMD.detach().float()
        through_BMD = self.widen(told_BMW * read_W) * there_BM1
        apart, size = ((through_BMD - z) * there_BM1).square().sum(), (z * there_BM1).square().sum()
        return through_BMD.to(z_BMD.dtype), apart / size.clamp_min(1e-9)
