"""Repeat the text from its beginning (ICAE, In-Context Autoencoder): the smaller part of alignment pretraining."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentwire.objectives.base import Objective, ObjectiveConfig, Passages, Rows, window_rows


@ObjectiveConfig.register_subclass("reconstruction")
@dataclass
class ReconstructionConfig(ObjectiveConfig):
    def build(self) -> Reconstruction:
        return Reconstruction(self)


class Reconstruction(Objective):
    """One row a passage: a line break, then the passage from its first token."""

    source = "text"

    def cut(self, passages: Passages, width: int, generator: torch.Generator) -> Rows | None:
        start_BR = torch.zeros(passages.count_B.shape[0], 1, dtype=torch.long, device=passages.count_B.device)
        return window_rows(passages, start_BR, width, cue=0)
