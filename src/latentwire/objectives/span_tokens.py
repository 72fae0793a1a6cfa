"""A head that reads off each latent which tokens it stands for: cross-entropy of every token of the passage.

Questions ask for a few words of a text; this asks for all of them, at once and where they stand, so it says far more of
what a latent has lost in a step. It is meant for packets of few bytes (learned codes), where what is told must be
chosen well. The head is trained with the link and kept in checkpoints; the wire goes without it. (After the
autoencoding of ICAE, Ge et al. 2023, without the reader in between.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Sent
from latentwire.objectives.vectors import mean_where
from latentwire.receivers import Receiver
from latentwire.receivers.tokenizer import tokenizer_hash


@ObjectiveConfig.register_subclass("span-tokens")
@dataclass
class SpanTokensConfig(ObjectiveConfig):
    """width: of the head's hidden layer. share: of a step's passages that are asked, since logits of every token of a
    passage are many. It is for receivers that cut text as the encoder does; others take no part."""

    width: int = 1024
    share: float = 0.25

    def build(self) -> SpanTokens:
        if self.width < 1:
            raise UserError(f"span-tokens.width must be at least 1, not {self.width}")
        if not 0 < self.share <= 1:
            raise UserError(f"span-tokens.share is a share of the passages, above 0 and at most 1, not {self.share}")
        return SpanTokens(self)


class SpanTokens(Objective):
    role = "passage"
    config: SpanTokensConfig

    def concerns(self, receiver: Receiver, encoder: nn.Module) -> bool:
        words = getattr(encoder, "tokenizer", None)
        return words is not None and tokenizer_hash(words) == tokenizer_hash(receiver.tokenizer)

    def fit(self, link: nn.Module, width: int, receiver: Receiver, encoder: nn.Module) -> Head:
        c: Any = encoder.config
        return Head(c.d_z, max(c.ratios), self.config.width, receiver.geometry.width)

    def passage(self, sent: Sent, own: nn.Module | None) -> tuple[Tensor, dict[str, Tensor]]:
        assert own is not None, "the step hands every objective its own module"
        few = math.ceil(self.config.share * len(sent.ids_BT))
        z_BMD, ids_BT, mask_BT = sent.latents.z_BMD[:few], sent.ids_BT[:few].long(), sent.token_mask_BT[:few]
        # vectors in full precision, but logits of so many tokens as the rest of a step has them
        with torch.autocast(z_BMD.device.type, torch.bfloat16, enabled=z_BMD.is_cuda):
            h_BTE = own(z_BMD, sent.latents.ratio_B[:few], ids_BT.shape[1])
            logits_BTV = sent.receiver.logits(h_BTE.to(sent.receiver.dtype))
        ce_BT = F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT.flatten(), reduction="none").view_as(mask_BT)
        right_BT = (logits_BTV.detach().argmax(-1) == ids_BT).float()
        return mean_where(ce_BT, mask_BT), {"right": mean_where(right_BT, mask_BT)}


class Head(nn.Module):
    """Latents [B, M, D] → a state [B, T, E] for each token, from its latent and its place in the latent's span."""

    def __init__(self, d_z: int, most: int, width: int, embedding_width: int) -> None:
        super().__init__()
        self.read = nn.Linear(d_z, width)
        self.gain = nn.Embedding(most, width)
        self.shift = nn.Embedding(most, width)
        nn.init.normal_(self.gain.weight, 1.0, 0.5)
        nn.init.normal_(self.shift.weight, 0.0, 0.5)
        self.out = nn.Sequential(nn.GELU(), nn.Linear(width, embedding_width), nn.LayerNorm(embedding_width))

    def forward(self, z_BMD: Tensor, ratio_B: Tensor, tokens: int) -> Tensor:
        place_BT = torch.arange(tokens, device=z_BMD.device).expand(len(z_BMD), -1)
        within_BT = place_BT % ratio_B[:, None]
        # tokens behind the last latent are padding; they read it, and are not judged
        at_BT = (place_BT // ratio_B[:, None]).clamp_max(z_BMD.shape[1] - 1)
        h_BMW = self.read(z_BMD)
        h_BTW = h_BMW.gather(1, at_BT[..., None].expand(-1, -1, h_BMW.shape[-1]))
        return self.out(h_BTW * self.gain(within_BT) + self.shift(within_BT))
