"""Slots held to the token embeddings that the teacher reads in their place.

A slot starts nowhere near anything the receiver has met; this takes it there. Mostly as a warm-up, with a weight that
falls: ``weight: {kind: linear, start_value: 1, value: 0, end: 0.1}`` costs nothing any more once it is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Sent
from latentwire.objectives.vectors import apart, same_width, stands_for
from latentwire.receivers import Receiver

TO = ("spans", "first")


@ObjectiveConfig.register_subclass("embedding-alignment")
@dataclass
class EmbeddingAlignmentConfig(ObjectiveConfig):
    """to: ``spans``, each slot to the mean embedding of the tokens it stands for; ``first``, the prefix of slots to the
    passage's first tokens, one each. slots: only the first so many take part (0: all). mse: weight of the squared
    distance beside 1 less the cosine, in units of the embeddings' mean square; scale counts in it."""

    to: str = "spans"
    slots: int = 0
    mse: float = 1.0

    def build(self) -> EmbeddingAlignment:
        if self.to not in TO:
            raise UserError(f"embedding-alignment.to is {' or '.join(TO)}, not {self.to!r}")
        if self.slots < 0:
            raise UserError(f"embedding-alignment.slots is a number of slots, or 0 for all, not {self.slots}")
        if self.mse < 0:
            raise UserError(f"embedding-alignment.mse is a weight of at least 0, not {self.mse}")
        return EmbeddingAlignment(self)


class EmbeddingAlignment(Objective):
    role = "passage"
    cosine = True
    config: EmbeddingAlignmentConfig

    def fit(self, link: nn.Module, width: int, receiver: Receiver, encoder: nn.Module) -> None:
        same_width("embedding-alignment", width, receiver)

    def passage(self, sent: Sent, own: nn.Module | None) -> tuple[Tensor, dict[str, Tensor]]:
        place_S = torch.arange(sent.mask_BS.shape[1], device=sent.mask_BS.device)
        if self.config.to == "first":
            # row t of it is slot t, as long as there are tokens
            place_T = torch.arange(sent.ids_BT.shape[1], device=place_S.device)
            for_BTS = ((place_T[:, None] == place_S) & sent.token_mask_BT[..., None]).float()
        else:
            for_BTS = stands_for(sent)
        # more slots than tokens: some stand for none
        many_BS = for_BTS.sum(1)
        goal_BSE = for_BTS.mT @ sent.tokens_BTE / many_BS.clamp_min(1)[..., None]
        taken_BS = sent.mask_BS & (many_BS > 0)
        if self.config.slots:
            taken_BS = taken_BS & (place_S < self.config.slots)
        return apart(sent.slots_BSE, goal_BSE, taken_BS, self.config.mse, sent.token_rms)
