"""Any adapter with a hint of what kind of answer is wanted, read off the latents themselves.

A text's mean latent chooses among a few learned styles, and the mixture is added to all of its slots. In prompt mode
the latents hold the question, so a style can come to mean "a year" or "a name"; in context mode it can only mean a kind
of text. The first implementation hinted too, with the length of the right answer. Here nothing but latents and mode
comes in, so no hint can know it: the same text and question give the same slots whatever the answer. Styles start at
zero, where the adapter is the inner one alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from latentwire.adapters.base import Adapter, AdapterConfig
from latentwire.adapters.mlp import MLPAdapterConfig
from latentwire.errors import UserError
from latentwire.receivers import Receiver
from latentwire.types import MODES, Latents


@AdapterConfig.register_subclass("hinted")
@dataclass
class HintedAdapterConfig(AdapterConfig):
    """inner: the adapter that makes the slots (its ``slots`` are these). styles: how many there are to mix."""

    inner: AdapterConfig = field(default_factory=MLPAdapterConfig)
    styles: int = 8

    def build(self, d_z: int, width: int) -> HintedAdapter:
        if self.styles < 2:
            raise UserError(f"adapter.styles is a number of styles to choose from, at least 2, not {self.styles}")
        if isinstance(self.inner, HintedAdapterConfig):
            raise UserError("adapter.inner is hinted itself; one hint is enough")
        return HintedAdapter(self, d_z, width)


class HintedAdapter(Adapter):
    """Latents [B, M, D] → the inner adapter's slots [B, M * slots, E] plus one style [E] for each text."""

    config: HintedAdapterConfig

    def __init__(self, config: HintedAdapterConfig, d_z: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.inner = replace(config.inner, slots=config.slots).build(d_z, width)
        self.choose = nn.ModuleDict({mode: nn.Linear(d_z, config.styles) for mode in MODES})
        self.style_SE = nn.Parameter(torch.zeros(config.styles, width))

    def calibrate(self, receiver: Receiver, texts: list[str]) -> None:
        self.inner.calibrate(receiver, texts)

    def penalty(self) -> Tensor | None:
        return self.inner.penalty()

    def shares(self, latents: Latents, mode: str) -> Tensor:
        """How much of each style a text gets, [B, styles], adding up to 1."""
        mean_BD = (latents.z_BMD * latents.mask_BM[..., None]).sum(1) / latents.count_B.clamp_min(1)[:, None]
        return self.choose[mode](mean_BD).softmax(-1)

    def forward(self, latents: Latents, mode: str, slots: int) -> Tensor:
        hint_BE = self.shares(latents, mode) @ self.style_SE
        return self.inner(latents, mode, slots) + hint_BE[:, None]
