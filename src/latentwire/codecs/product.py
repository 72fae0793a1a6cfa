"""Codes of parts: a latent is led to a few short vectors, each is named by its number in one large book, and what was
named is read together with its neighbours (product quantisation, Jégou et al. 2011, with a convolutional way back as
in SoundStream, Zeghidour et al. 2021).

One part for each token of a latent's span, and a book with room for every token several times over: then codes need not
find out by themselves that a text is made of tokens, which is what codes learned from nothing fail at. ``begin`` solves
for a start from latents whose tokens are known: parts that tell tokens apart, a book of what each token looks like in
them. By that the nearest vector is found ever after: a book that moved would lose the vectors that are rarely named,
while parts that are pulled towards it lose none. What a vector is read as learns, and so do encoder and maps; it is the
wire's own affair, and no text is restored on the way back. Nothing moves without a gradient, so several processes may
learn it, and runs that began alike have a mean.

The way back looks at neighbouring latents, since the same few bits say more beside others. It reaches ``layers`` times
half of ``kernel`` latents to either side, whatever the length of the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from latentwire.codecs.apart import begin_apart, solve
from latentwire.codecs.codes import Codes, CodesConfig
from latentwire.errors import UserError

ROWS = 8192
"""Vectors that are compared with the book at a time, which bounds memory."""


@CodesConfig.register_subclass("product")
@dataclass
class ProductConfig(CodesConfig):
    """parts: of a latent; as many as its span has tokens, if codes shall begin from these. bits: of a part's number, so
    the book has 2^bits vectors; ``stages`` bytes are what all parts take. width: values of a part, by which the nearest
    vector is found. read: values that are read for it, at least as many. layers, kernel, multiple: blocks of the way
    back, latents that each looks at, and how wide its MLP is. pull: weight of the distance between parts and the
    vectors they name, beside the distance between latents and what is read."""

    stages: int = 7
    parts: int = 4
    bits: int = 14
    width: int = 64
    read: int = 128
    layers: int = 3
    kernel: int = 9
    multiple: float = 4.0
    pull: float = 0.5
    commit: float = 1.0

    def check(self) -> None:
        super().check()
        if not 1 <= self.bits <= 20:
            raise UserError(f"codes.bits is 1 to 20, not {self.bits}")
        if self.parts < 1 or self.parts * self.bits != 8 * self.stages:
            raise UserError(
                f"codes.parts of {self.bits} bits fill whole bytes, which are codes.stages: {self.parts} take "
                f"{self.parts * self.bits} bits, not {self.stages} bytes"
            )
        if not 1 <= self.width <= self.read:
            raise UserError(f"codes.width is 1 to codes.read, {self.read}, not {self.width}")
        if self.layers < 0 or self.kernel < 1 or self.kernel % 2 == 0 or self.multiple <= 0:
            raise UserError("codes.layers is at least 0, codes.kernel an odd number, codes.multiple above 0")
        if self.pull < 0:
            raise UserError(f"codes.pull is a weight of at least 0, not {self.pull}")

    def build(self, d_z: int) -> ProductCodes:
        return ProductCodes(self, d_z)


class Neighbours(nn.Module):
    """[B, M, D] → the same: each value is mixed with its neighbours', then an MLP; added, and nothing at first."""

    def __init__(self, width: int, kernel: int, multiple: float) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        last = nn.Linear(int(multiple * width), width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(width, int(multiple * width)), nn.GELU(), last)

    def forward(self, x_BMD: Tensor, there_BM1: Tensor) -> Tensor:
        # what is behind the end is what a text that ends there has: nothing
        mixed_BMD = self.mix((x_BMD * there_BM1).mT).mT
        return x_BMD + self.mlp(self.norm(mixed_BMD))


class ProductCodes(Codes):
    """P parts of W values, each told by ``bits`` bits. Fewer codes than all of them are no packet.

    down: D → P * R, of whose R values the first W are looked up. keys: float32 [2^bits, W], which stay as they are.
    book: [2^bits, R], what is read. up: P * R → D, then blocks of :class:`Neighbours`.
    """

    config: ProductConfig
    keys: Tensor

    def __init__(self, config: ProductConfig, d_z: int) -> None:
        super().__init__(config, d_z)
        c = config
        self.down, self.up = nn.Linear(d_z, c.parts * c.read), nn.Linear(c.parts * c.read, d_z)
        self.book = nn.Embedding(2**c.bits, c.read)
        self.register_buffer("keys", self.book.weight[:, : c.width].detach().clone())
        self.blocks = nn.ModuleList(Neighbours(d_z, c.kernel, c.multiple) for _ in range(c.layers))

    def parts(self) -> list[Tensor]:
        return [self.keys, *super().parts()]

    def stages(self, asked: int) -> int:
        if asked != self.config.stages:
            raise UserError(f"this wire has {self.config.stages} codes for a latent, all or none, not {asked}")
        return asked

    @torch.no_grad()
    def begin(self, z_ND: Tensor, ids_NP: Tensor, table_VE: Tensor) -> bool:
        c = self.config
        if ids_NP.shape[1] != c.parts:
            return False
        start = begin_apart(z_ND, ids_NP, table_VE, c.read, 2**c.bits)
        self.down.weight.copy_(start.down_RD)
        self.down.bias.copy_(start.shift_R)
        self.book.weight.copy_(start.book_CR)
        self.keys.copy_(start.book_CR[:, : c.width])
        told_NR = self.book(self.find(self.narrow(z_ND))).flatten(-2)
        back = torch.cat([told_NR, torch.ones_like(told_NR[:, :1])], 1).double()
        solved = solve(back, z_ND.double(), 1e-4 * len(back)).float()
        self.up.weight.copy_(solved[:-1].mT)
        self.up.bias.copy_(solved[-1])
        return True

    def narrow(self, z: Tensor) -> Tensor:
        """Parts, float32 [..., P, R], of latents [..., D]."""
        with torch.autocast(z.device.type, enabled=False):
            return self.down(z.float()).unflatten(-1, (self.config.parts, self.config.read))

    @torch.no_grad()
    def find(self, u: Tensor) -> Tensor:
        """int64 [..., P]: the nearest vector's number, of parts [..., P, R]."""
        rows_NW = u.detach()[..., : self.config.width].flatten(0, -2)
        with torch.autocast(u.device.type, enabled=False):
            half_C = self.keys.square().sum(-1) / 2
            found = [(half_C - rows @ self.keys.mT).argmin(-1) for rows in rows_NW.float().split(ROWS)]
        return torch.cat(found).view(u.shape[:-1])

    def widen(self, told: Tensor, there_BM1: Tensor) -> Tensor:
        """Latents float32 [B, M, D] of what was named, [B, M, P, R], with mean 0 and spread 1 as an encoder's."""
        x_BMD = self.up(told.flatten(-2))
        for block in self.blocks:
            x_BMD = block(x_BMD, there_BM1)
        return layer_norm(x_BMD.float(), (self.d_z,)) * there_BM1

    @torch.no_grad()
    def codes(self, z: Tensor, stages: int) -> Tensor:
        self.stages(stages)
        number = self.find(self.narrow(z))[..., None]
        bits = (number >> torch.arange(self.config.bits, device=z.device)) & 1
        return (bits.flatten(-2).unflatten(-1, (stages, 8)) << torch.arange(8, device=z.device)).sum(-1).to(torch.uint8)

    def numbers(self, codes: Tensor) -> Tensor:
        """int64 [..., P] of codes [..., K]: the bits of all parts behind one another, the least of each first."""
        bits = (codes.long()[..., None] >> torch.arange(8, device=codes.device)) & 1
        apart = bits.flatten(-2).unflatten(-1, (self.config.parts, self.config.bits))
        return (apart << torch.arange(self.config.bits, device=codes.device)).sum(-1)

    @torch.no_grad()
    def vectors(self, codes: Tensor, mask: Tensor | None = None) -> Tensor:
        self.stages(codes.shape[-1])
        there = torch.ones_like(codes[..., :1], dtype=torch.float32) if mask is None else mask[..., None].float()
        told = self.book(self.numbers(codes)).float()
        if codes.ndim == 2:  # the latents of one text
            return self.widen(told[None], there[None])[0]
        return self.widen(told, there)

    def forward(self, z_BMD: Tensor, mask_BM: Tensor, stages: int) -> tuple[Tensor, Tensor]:
        """As in the base class: the gradient reaches the latents as if parts had not been exchanged, and the book as if
        it had been read. The distance is that of what is read from the latents, which stand still for it, and ``pull``
        times that of parts from the vectors they name; shares of the squares of the ones and the others."""
        self.stages(stages)
        u = self.narrow(z_BMD)
        number = self.find(u)
        named = self.book(number).float()
        there_BM1, z = mask_BM[..., None].float(), z_BMD.detach().float()
        through_BMD = self.widen(named + (u - u.detach()), there_BM1)
        far = share(through_BMD - z, z, there_BM1)
        compared, keys = u[..., : self.config.width], self.keys[number]
        near = share(compared - keys, keys, there_BM1[..., None])
        return through_BMD.to(z_BMD.dtype), far + self.config.pull * near


def share(apart: Tensor, of: Tensor, there: Tensor) -> Tensor:
    """[]: the square of the one as a share of the other's, where something is there."""
    return (apart * there).square().sum() / (of * there).square().sum().clamp_min(1e-9)
