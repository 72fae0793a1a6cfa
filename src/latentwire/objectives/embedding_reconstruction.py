"""Each token's embedding, read off the slot that stands for it: what reconstructs it is the slot itself, no decoder.

The first implementation's first stage. A slot of several tokens can only be near all of them, so the cosine has a
ceiling that falls with the ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Sent
from latentwire.objectives.vectors import apart, same_width, stands_for
from latentwire.receivers import Receiver


@ObjectiveConfig.register_subclass("embedding-reconstruction")
@dataclass
class EmbeddingReconstructionConfig(ObjectiveConfig):
    """mse: weight of the squared distance beside 1 less the cosine, in units of the embeddings' mean square. matched:
    slots are brought to the RMS of the embeddings first, text by text, so that their scale is left free."""

    mse: float = 1.0
    matched: bool = True

    def build(self) -> EmbeddingReconstruction:
        if self.mse < 0:
            raise UserError(f"embedding-reconstruction.mse is a weight of at least 0, not {self.mse}")
        return EmbeddingReconstruction(self)


class EmbeddingReconstruction(Objective):
    role = "passage"
    cosine = True
    config: EmbeddingReconstructionConfig

    def fit(self, link: nn.Module, width: int, receiver: Receiver, encoder: nn.Module) -> None:
        same_width("embedding-reconstruction", width, receiver)

    def passage(self, sent: Sent, own: nn.Module | None) -> tuple[Tensor, dict[str, Tensor]]:
        guess_BTE = stands_for(sent) @ sent.slots_BSE
        if self.config.matched:
            energy_B, wanted_B = (x.square().sum((1, 2)) for x in (guess_BTE, sent.tokens_BTE))
            guess_BTE = guess_BTE * torch.sqrt(wanted_B / energy_B.clamp_min(1e-12))[:, None, None]
        return apart(guess_BTE, sent.tokens_BTE, sent.token_mask_BT, self.config.mse, sent.token_rms)
