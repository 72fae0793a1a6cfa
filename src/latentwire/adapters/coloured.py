"""A linear map whose slots are coloured like the receiver's embeddings: standardised, then given the mean and the
deviation that each dimension has over the receiver's own embeddings of plain text.

Embeddings are far from equal in all directions: a few dimensions are large, or have a mean of their own, and a model
relies on them. The linear map need not find that out. Slots are standardised over their own channels (LayerNorm
without parameters): statistics over a batch would make a slot depend on its neighbours and on padding, and running ones
would make training and use differ. That takes a slot's length away; the affine behind it gives it a new one.

The statistics are buffers, what is learnt is the distance from them: weight decay pulls to the receiver's statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.adapters.base import Adapter, AdapterConfig, Expand
from latentwire.errors import UserError
from latentwire.receivers import Receiver
from latentwire.types import Latents


@AdapterConfig.register_subclass("coloured")
@dataclass
class ColouredAdapterConfig(AdapterConfig):
    def build(self, d_z: int, width: int) -> ColouredAdapter:
        return ColouredAdapter(self, d_z, width)


class ColouredAdapter(Adapter):
    """Latents [B, M, D] → slots [B, M * slots, E] in units of the receiver's embedding RMS, which is what injections
    expect; mode makes no difference here. mean, dev: [E], of embeddings in that unit."""

    mean: Tensor
    dev: Tensor

    def __init__(self, config: ColouredAdapterConfig, d_z: int, width: int) -> None:
        super().__init__()
        self.config: ColouredAdapterConfig = config
        self.expand = Expand(config.slots, d_z, width)
        self.stretch = nn.Parameter(torch.zeros(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("dev", torch.ones(width))

    @torch.no_grad()
    def calibrate(self, receiver: Receiver, texts: list[str]) -> None:
        if (wide := len(self.mean)) != receiver.geometry.width:
            raise UserError(
                f"adapter coloured makes slots like the receiver's embeddings ({receiver.geometry.width} wide), "
                f"the injection wants them {wide} wide; leave injection.width out"
            )
        ids = [token for row in receiver.prompt.context_ids(texts) for token in row]
        embedded_TE = receiver.embed(torch.tensor(ids, device=receiver.device)[None])[0].float()
        rms = embedded_TE.square().mean().sqrt()
        self.mean.copy_(embedded_TE.mean(0) / rms)
        self.dev.copy_(embedded_TE.std(0, correction=0) / rms)

    def forward(self, latents: Latents, mode: str, slots: int) -> Tensor:
        x_BSE = self.expand(latents.z_BMD, slots)
        x_BSE = F.layer_norm(x_BSE, x_BSE.shape[-1:])
        return x_BSE * (self.dev * (1 + self.stretch)) + self.mean + self.shift
