"""Codes: a latent as a few bytes that only the wire can read, since what they stand for has been learned with it.

A way to make them is a file beside this one: books of vectors (``residual.py``), values on a grid (``grid.py``) or the
parts of a latent (``product.py``). With the first two the first so many codes of a latent are a coarser packet of their
own, so one wire has many rates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from latentwire.codecs.base import Codec
from latentwire.config import Choice
from latentwire.errors import UserError


@dataclass
class CodesConfig(Choice):
    """stages: codes of a latent at most, a byte each. commit: weight in the loss of the distance that ``forward`` gives
    beside what is read. ratios: what the codes were learned at, which training notes here; empty where nobody knows."""

    stages: int = 16
    commit: float = 0.1
    ratios: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.check()

    @classmethod
    def default_choice_name(cls) -> str:
        return "residual"

    def check(self) -> None:
        """UserError: a setting is out of range."""
        if not 1 <= self.stages <= 255:
            raise UserError(f"codes have 1 to 255 stages, not {self.stages}")
        if self.commit < 0:
            raise UserError(f"codes.commit is a weight of at least 0, not {self.commit}")

    def build(self, d_z: int) -> Codes:
        raise NotImplementedError


class Codes(nn.Module):
    """Latents [..., D] → codes uint8 [..., K] → latents [..., D], K of at most ``config.stages``.

    moving: whether something in it learns without gradients; then one process alone may learn it, and a mean of several
    runs means nothing. learns: False holds that still in training too, where a link joins that reads it.
    fresh: True where training has just made them, so that they may :meth:`begin`.
    """

    moving = False

    def __init__(self, config: Any, d_z: int) -> None:
        super().__init__()
        self.config, self.d_z = config, d_z
        self.learns, self.fresh = True, False
        self._told: tuple[tuple, bytes] | None = None

    def at(self, ratio: int) -> None:
        """UserError: the codes were not learned at this ratio, so a packet of them would say next to nothing."""
        if self.config.ratios and ratio not in self.config.ratios:
            known = ", ".join(f"{each}x" for each in self.config.ratios)
            raise UserError(f"this wire's codes were learned at {known}, not at {ratio}x")

    def stages(self, asked: int) -> int:
        """UserError: there are not so many."""
        if not 1 <= asked <= self.config.stages:
            raise UserError(f"this wire has 1 to {self.config.stages} codes for a latent, not {asked}")
        return asked

    def codec(self, bits: float) -> Coded:
        """The codec of so many bits per value of a latent. UserError: that is no whole number of codes, or too many."""
        count = bits * self.d_z / 8
        if count != int(count):
            raise UserError(
                f"{bits} bits per value are no whole number of codes; a code is {8 / self.d_z} bits per value"
            )
        return Coded(self, self.stages(int(count)))

    def fingerprint(self, encoder: bytes) -> bytes:
        """Eight bytes over an encoder's fingerprint and all that codes are read with: others mean other vectors."""
        parts = self.parts()
        # what is asked for every packet is worked out once
        key = encoder, *((part.data_ptr(), part._version) for part in parts)
        if self._told is None or self._told[0] != key:
            told = b"".join(part.float().cpu().numpy().astype("<f4").tobytes() for part in parts)
            self._told = key, hashlib.sha256(encoder + told).digest()[:8]
        return self._told[1]

    def parts(self) -> list[Tensor]:
        """What codes are read with."""
        return [p.detach() for p in self.parameters()]

    @property
    def device(self) -> torch.device:
        return self.parts()[0].device

    def begin(self, z_ND: Tensor, ids_NP: Tensor, table_VE: Tensor) -> bool:
        """Start from latents whose tokens are known, before anything is learned: ids int64 [N, P] (-1: none) and the
        embeddings of all tokens. Returns whether that was of any use. UserError: these are too few."""
        return False

    def codes(self, z: Tensor, stages: int) -> Tensor:
        """uint8 [..., K] of latents [..., D], without gradient."""
        raise NotImplementedError

    def vectors(self, codes: Tensor, mask: Tensor | None = None) -> Tensor:
        """float32 [..., D] of codes [..., K], without gradient: of one text's latents, [M, K], or of a batch's with the
        ``mask`` [B, M] of those that are there (all, if None). UserError: codes that cannot be."""
        raise NotImplementedError

    def read(self, texts: Sequence[Tensor]) -> list[Tensor]:
        """Latents [M, D] of the codes [M, K] of each text: those with as many codes are read together."""
        found: dict[int, Tensor] = {}
        for many in {codes.shape[-1] for codes in texts}:
            own = [number for number, codes in enumerate(texts) if codes.shape[-1] == many]
            counts = torch.tensor([len(texts[number]) for number in own], device=self.device)
            codes_BMK = nn.utils.rnn.pad_sequence([texts[number] for number in own], batch_first=True)
            mask_BM = torch.arange(codes_BMK.shape[1], device=self.device) < counts[:, None]
            z_BMD = self.vectors(codes_BMK, mask_BM)
            found |= {number: z_MD[: len(texts[number])] for number, z_MD in zip(own, z_BMD, strict=True)}
        return [found[number] for number in range(len(texts))]

    def forward(self, z_BMD: Tensor, mask_BM: Tensor, stages: int) -> tuple[Tensor, Tensor]:
        """What is left of latents behind ``stages`` codes, with a gradient for the latents; and a distance [] that
        training holds small."""
        raise NotImplementedError


@dataclass
class Coded(Codec):
    """Payload: K bytes of each latent, its first codes. What they stand for is in the wire that wrote them: with
    ``codes`` (the wire's) this is a codec like the others; without, values are the codes themselves. It is in no
    registry, since without a wire there is nothing to choose."""

    number = 5
    bits = 8
    name = "codes"
    codes: Codes | None = field(default=None, repr=False)
    stages: int = 0

    def nbytes(self, m: int, d: int) -> int:
        return m * (self.stages or d)

    def pack(self, z_MD: Tensor) -> bytes:
        if self.codes is not None:
            z_MD = self.codes.codes(z_MD.to(self.codes.device), self.stages).cpu().float()
        whole = z_MD.round()
        if not (torch.equal(whole, z_MD) and ((whole >= 0) & (whole <= 255)).all()):
            raise UserError("codes are whole numbers from 0 to 255; encode the text with the wire's own codes")
        return whole.to(torch.uint8).numpy().tobytes()

    def unpack(self, data: bytes | memoryview, m: int, d: int) -> Tensor:
        codes_MK = torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(m, -1)
        if self.codes is None:
            return codes_MK.float()
        return self.codes.vectors(codes_MK.to(self.codes.device)).cpu()

    def fake_quantise(self, z_BMD: Tensor) -> Tensor:
        if self.codes is None:
            return z_BMD.float()
        # latents have a spread of 1: what is all zero is not there
        return self.codes.vectors(self.codes.codes(z_BMD, self.stages), (z_BMD != 0).any(-1))
