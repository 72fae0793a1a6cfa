"""Learned codes: a latent as a few bytes, each the number of a vector in a codebook (residual vector quantisation).

A latent's first code names the nearest vector of the first book, the second one that of the second book to what is then
left, and so on; what the named vectors add up to is what is read (Gray 1984; SoundStream, Zeghidour et al. 2021). The
books belong to the wire and learn beside the encoder: they follow the means of what was given to them (exponential
moving averages, van den Oord et al. 2017), the encoder gets the gradient as if nothing had happened (straight-through),
and vectors that nobody comes to begin anew at what is badly told. The first so many codes are a coarser packet of their
own, so one wire has many rates.

Latents spread what they say over hundreds of values, of which a few bytes can only tell a third. With ``width`` the
books hold vectors of fewer values: a linear map that learns with the wire leads there and another one back (as in the
factorised codes of Kumar et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from latentwire.codecs.codes import Codes, CodesConfig
from latentwire.errors import UserError


@CodesConfig.register_subclass("residual")
@dataclass
class ResidualConfig(CodesConfig):
    """stages: books. size: vectors of a book, up to 256 (a code is a byte). width: values of a vector, 0: as many as a
    latent has. decay: of the moving averages, a step. dead: a vector with less than this share of an even use begins
    anew. commit: weight of the encoder's distance from its codes, relative to its size."""

    size: int = 256
    width: int = 0
    decay: float = 0.98
    dead: float = 0.05

    def check(self) -> None:
        super().check()
        if not 2 <= self.size <= 256:
            raise UserError(f"books of codes have 2 to 256 vectors, not {self.size}")
        if self.width < 0:
            raise UserError(f"codes.width is a number of values, or 0 for those of a latent, not {self.width}")
        if not (0 <= self.decay < 1 and 0 <= self.dead < 1):
            raise UserError("codes.decay and codes.dead are from 0 to below 1")

    def build(self, d_z: int) -> ResidualCodes:
        return ResidualCodes(self, d_z)


class ResidualCodes(Codes):
    """Books of K stages.

    books: float32 [K * C, W], stage by stage; W is the width, or D. down, up: there and back, if W is not D.
    use: float32 [K, C], how much of the averages each vector holds; 0: it has not begun.
    """

    moving = True
    config: ResidualConfig
    books: Tensor
    use: Tensor

    def __init__(self, config: ResidualConfig, d_z: int) -> None:
        super().__init__(config, d_z)
        self.down = self.up = None
        if config.width:
            self.down, self.up = nn.Linear(d_z, config.width, bias=False), nn.Linear(config.width, d_z, bias=False)
            nn.init.orthogonal_(self.down.weight)
            self.up.weight.data.copy_(self.down.weight.mT)
        self.register_buffer("books", torch.zeros(config.stages * config.size, config.width or d_z))
        self.register_buffer("use", torch.zeros(config.stages, config.size))

    def parts(self) -> list[Tensor]:
        return [self.books, *super().parts()]

    def narrow(self, z: Tensor) -> Tensor:
        """What the books tell of latents: float32 [..., W] of [..., D], each vector with mean 0 and spread 1."""
        if self.down is None:
            return z.float()
        with torch.autocast(z.device.type, enabled=False):
            return layer_norm(self.down(z.float()), (self.config.width,))

    def widen(self, told: Tensor) -> Tensor:
        """The way back: latents float32 [..., D] of what books told, with mean 0 and spread 1 as an encoder's."""
        if self.up is None:
            return told
        with torch.autocast(told.device.type, enabled=False):
            return layer_norm(self.up(told.float()), (self.d_z,))

    def book(self, stage: int) -> Tensor:
        """Vectors [C, W] of a stage."""
        return self.books[stage * self.config.size : (stage + 1) * self.config.size]

    def nearest(self, rest_NW: Tensor, stage: int) -> Tensor:
        """Codes int64 [N]; a vector that has not begun is nobody's."""
        book_CW = self.book(stage)
        distance_NC = book_CW.square().sum(-1) - 2 * rest_NW @ book_CW.mT
        return distance_NC.masked_fill(self.use[stage] <= 0, torch.inf).argmin(-1)

    @torch.no_grad()
    @torch.autocast("cuda", enabled=False)
    def nearest_of(self, u: Tensor, stages: int) -> Tensor:
        """Codes int64 [..., K] of what the books are asked to tell, [..., W]."""
        rest_NW, found = u.detach().flatten(0, -2), []
        for stage in range(self.stages(stages)):
            code_N = self.nearest(rest_NW, stage)
            found.append(code_N)
            rest_NW = rest_NW - self.book(stage)[code_N]
        return torch.stack(found, -1).reshape(*u.shape[:-1], stages)

    def told(self, codes: Tensor) -> Tensor:
        """What codes [..., K] add up to: float32 [..., W]."""
        at = codes.long() + torch.arange(codes.shape[-1], device=codes.device) * self.config.size
        return self.books[at].sum(-2)

    @torch.no_grad()
    def codes(self, z: Tensor, stages: int) -> Tensor:
        return self.nearest_of(self.narrow(z), stages).to(torch.uint8)

    @torch.no_grad()
    def vectors(self, codes: Tensor, mask: Tensor | None = None) -> Tensor:
        self.stages(codes.shape[-1])
        if codes.numel() and int(codes.max()) >= self.config.size:
            raise UserError(f"a packet names vector {int(codes.max())} of a book of {self.config.size}")
        return self.widen(self.told(codes))

    def forward(self, z_BMD: Tensor, mask_BM: Tensor, stages: int) -> tuple[Tensor, Tensor]:
        """As in the base class: the gradient is that of the latents themselves, the distance the commitment, mean
        squared and as a share of the latents' mean square. In training the books learn."""
        learns = self.training and self.learns
        u_BMW, there_BM1 = self.narrow(z_BMD), mask_BM[..., None].float()
        told_BMW = self.learn(u_BMW, mask_BM, stages) if learns else self.told(self.nearest_of(u_BMW, stages))
        apart = ((u_BMW - told_BMW).square() * there_BM1).sum()
        size = (u_BMW.detach().square() * there_BM1).sum().clamp_min(1e-9)
        through_BMD = self.widen(u_BMW + (told_BMW - u_BMW).detach())
        return (through_BMD * there_BM1).to(z_BMD.dtype), apart / size

    @torch.no_grad()
    @torch.autocast("cuda", enabled=False)
    def learn(self, u_BMW: Tensor, mask_BM: Tensor, stages: int) -> Tensor:
        """Move the books towards what they were given, and return what they told before. Nothing waits for the device,
        so that a step may be recorded."""
        c = self.config
        rest_NW = u_BMW.detach().flatten(0, -2)
        there_N = mask_BM.reshape(-1).float()
        told_NW = torch.zeros_like(rest_NW)
        # vectors begin at latents of the batch, drawn anew for each stage and each vector
        chance_N = there_N + 1e-9
        for stage in range(self.stages(stages)):
            use_C, book_CW = self.use[stage], self.book(stage)
            fresh_CW = rest_NW[torch.multinomial(chance_N, c.size, replacement=True)]
            idle_C = use_C < c.dead * use_C.sum() / c.size
            begin_C = (use_C <= 0) | idle_C
            book_CW.copy_(torch.where(begin_C[:, None], fresh_CW, book_CW))
            use_C.copy_(torch.where(begin_C, (there_N.sum() / c.size).expand_as(use_C), use_C))
            code_N = self.nearest(rest_NW, stage)
            told = book_CW[code_N]
            many_C = torch.zeros_like(use_C).index_add_(0, code_N, there_N)
            sum_CW = torch.zeros_like(book_CW).index_add_(0, code_N, rest_NW * there_N[:, None])
            held_C = c.decay * use_C
            use_C.copy_(held_C + (1 - c.decay) * many_C)
            book_CW.copy_((held_C[:, None] * book_CW + (1 - c.decay) * sum_CW) / use_C.clamp_min(1e-9)[:, None])
            told_NW += told
            rest_NW = rest_NW - told
        return told_NW.reshape(u_BMW.shape)
