"""Any encoder with a latent refiner and latent dropout behind it: ``{type: refined, inner: {type: lm, ...}}``.

A wrapper, and not fields of every encoder's config: no other file knows of it, an encoder without it pays nothing, and
an encoder of an outside package can be refined as well.

Refiner: a small transformer over the slots of a text. It starts as the identity. (Published work found no gain from
attention between latents after pooling; there the decoder was trained on. ``layers: 0`` leaves dropout alone.)

Latent dropout, in training only: whole latents of a text become zero, so that no word of it is left to one latent
alone. A dropped latent is not masked: the others keep their places in the text, and zero says "unknown" to a receiver.
The others are not scaled up, because a receiver reads each latent by itself, at the length that it has in a packet.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.encoders.base import Encoder, EncoderConfig, Source
from latentwire.encoders.blocks import Block
from latentwire.encoders.byte import sinusoid
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.types import Latents

SHARED = ("d_z", "ratios", "window")


@EncoderConfig.register_subclass("refined")
@dataclass
class RefinedEncoderConfig(EncoderConfig):
    """inner: the encoder whose latents are refined. It is given d_z, ratios and window of this config; leave them out
    there.

    layers, heads, multiple: of the refiner; its MLPs are ``multiple`` times as wide as a latent. keep: share of latents
    that are kept in training. anneal: forward passes in training over which the share goes from 1 to ``keep`` (0: it is
    constant).
    """

    inner: EncoderConfig = field(default_factory=LMEncoderConfig)
    layers: int = 2
    heads: int = 4
    multiple: float = 2.0
    keep: float = 1.0
    anneal: int = 0

    @property
    def chars(self) -> float:
        """Of the inner encoder, which reads the text."""
        return self.inner.chars

    def build(self, assets: Path | None = None) -> RefinedEncoder:
        if not 0 < self.keep <= 1:
            raise UserError(f"encoder.keep is a share of latents above 0 and at most 1, not {self.keep}")
        if self.anneal < 0:
            raise UserError(f"encoder.anneal is a number of forward passes, not {self.anneal}")
        return RefinedEncoder(self, self._whole().build(assets and assets / "inner"))

    def _whole(self) -> EncoderConfig:
        """The inner config with what it shares with this one. UserError: it says something else itself."""
        plain = type(self.inner)()
        for name in SHARED:
            own, here = getattr(self.inner, name), getattr(self, name)
            if own not in (here, getattr(plain, name)):
                raise UserError(
                    f"encoder.inner.{name} is {own}, encoder.{name} is {here}; say it once, in encoder.{name}"
                )
        return replace(self.inner, **{name: getattr(self, name) for name in SHARED})


class RefinedEncoder(Encoder):
    """Latents of the inner encoder [B, M, D] → transformer over the slots → z [B, M, D] → some dropped in training."""

    config: RefinedEncoderConfig
    passes: Tensor

    def __init__(self, config: RefinedEncoderConfig, inner: Encoder) -> None:
        super().__init__()
        self.config = config
        self.inner, self.stacks, self.receivers = inner, inner.stacks, inner.receivers
        D = config.d_z
        if config.layers:
            self.place = nn.Linear(D, D, bias=False)
            nn.init.zeros_(self.place.weight)
        self.blocks = nn.ModuleList(Block(D, config.heads, config.multiple, still=True) for _ in range(config.layers))
        # on the device and in the checkpoint: a recorded step counts on, and a resumed run goes on where it was
        if config.anneal:
            self.register_buffer("passes", torch.zeros(1, dtype=torch.int64))

    def prepare(self, texts: list[str], width: int | None = None) -> Source:
        return self.inner.prepare(texts, width)

    def reads(self) -> dict[str, Any]:
        return self.inner.reads()

    def part(self, latents: Latents, receiver: str) -> Latents:
        return self.inner.part(latents, receiver)

    def forward(self, batch: dict[str, Tensor], ratio: int) -> Latents:
        latents = self.inner(batch, ratio)
        if self.config.layers:
            latents = latents.with_z(self.refine(latents, ratio))
        if self.training and self.config.keep < 1:
            latents = latents.with_z(self.drop(latents.z_BMD))
        return latents

    def refine(self, latents: Latents, ratio: int) -> Tensor:
        """Refined z [B, M, D]."""
        z_BMD, mask_BM = latents.z_BMD, latents.mask_BM
        middle_M = (torch.arange(z_BMD.shape[1], device=z_BMD.device) + 0.5) * ratio
        z_BMD = z_BMD + self.place(sinusoid(middle_M, self.config.d_z))
        for block in self.blocks:
            z_BMD = block(z_BMD, mask_BM)
        return F.layer_norm(z_BMD.float(), z_BMD.shape[-1:]) * mask_BM[..., None]

    def drop(self, z_BMD: Tensor) -> Tensor:
        """z with whole latents zeroed."""
        keep: Tensor | float = self.config.keep
        if self.config.anneal:
            done = (self.passes / self.config.anneal).clamp_max(1)
            keep = 1 - (1 - self.config.keep) * done
            self.passes += 1
        kept_BM = torch.rand(z_BMD.shape[:2], device=z_BMD.device) < keep
        return z_BMD * kept_BM[..., None]

    def save_assets(self, directory: Path) -> None:
        (directory / "inner").mkdir(parents=True, exist_ok=True)
        self.inner.save_assets(directory / "inner")
