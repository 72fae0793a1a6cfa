"""Vectors in place of the context's embeddings, read by the receiver itself (prompt tuning, Lester et al. 2021).

The receiver reads them once behind its head; the keys and values that it makes are the prefix of every row. Their norm
is free: it starts at the receiver's embedding RMS, or where the config says, and is never clamped (good soft tokens
have been seen far above it).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from latentwire.errors import UserError
from latentwire.injections.base import Injection, InjectionConfig
from latentwire.receivers import Geometry, Receiver
from latentwire.types import Prefix

CALIBRATIONS = ("train_stats", "embed_rms", "fixed", "none")


@InjectionConfig.register_subclass("soft-tokens")
@dataclass
class SoftTokensConfig(InjectionConfig):
    """multiple: width of the hidden layer in multiples of the receiver's width. gain: where the learned gain starts,
    in the unit that ``calibration`` chooses.

    calibration: ``train_stats``, the RMS of the receiver's embeddings of plain text (a word counts as often as it
    occurs); ``embed_rms``, that of its whole vocabulary, every word once, also those that it never met in training;
    ``fixed``, the number ``rms``; ``none``, 1. Each only says where the scale starts: the gain may take it anywhere.
    ramp: training steps over which the gain is scaled from ``ramp_from`` to 1, in a line; 0: it is whole at once.
    """

    only_vectors: ClassVar[bool] = True

    multiple: float = 3.0
    gain: float = 1.0
    calibration: str = "train_stats"
    rms: float = 1.0
    ramp: int = 0
    ramp_from: float = 0.1

    def build(self, geometry: Geometry) -> SoftTokens:
        if self.calibration not in CALIBRATIONS:
            raise UserError(f"injection.calibration is one of {', '.join(CALIBRATIONS)}, not {self.calibration!r}")
        for name, value in (("rms", self.rms), ("ramp_from", self.ramp_from)):
            if value <= 0:
                raise UserError(f"injection.{name} must be above 0, not {value}: a scale of 0 hides the latents")
        if self.ramp < 0:
            raise UserError(f"injection.ramp is a number of steps, not {self.ramp}")
        return SoftTokens(self, geometry)


class SoftTokens(Injection):
    """Slots [B, S, E] → residual MLP → embeddings [B, S, E] → one pass through the frozen receiver."""

    reads = True

    rms: Tensor
    steps: Tensor

    def __init__(self, config: SoftTokensConfig, geometry: Geometry) -> None:
        super().__init__()
        self.config = config
        hidden = int(config.multiple * geometry.width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(geometry.width),
            nn.Linear(geometry.width, hidden),
            nn.GELU(),
            nn.Linear(hidden, geometry.width),
        )
        self.gain = nn.Parameter(torch.tensor(float(config.gain)))
        self.register_buffer("rms", torch.tensor(float(config.rms) if config.calibration == "fixed" else 1.0))
        if config.ramp:  # a buffer: an interrupted run goes on where it was, a saved wire answers as it did
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def calibrate(self, receiver: Receiver, texts: list[str]) -> None:
        if self.config.calibration == "train_stats":
            ids = torch.tensor([token for row in receiver.prompt.context_ids(texts) for token in row])
        elif self.config.calibration == "embed_rms":
            ids = torch.arange(receiver.geometry.vocab)
        else:
            return
        # of embed(ids), not of the weight: Gemma scales inside; in parts: a large vocabulary in float32 is gigabytes
        parts = [
            receiver.embed(part[None]).float().square().mean(-1)[0] for part in ids.to(receiver.device).split(8192)
        ]
        self.rms.copy_(torch.cat(parts).mean().sqrt())

    def ramped(self) -> Tensor | float:
        """The gain's factor at this step."""
        if not self.config.ramp:
            return 1.0
        done = (self.steps / self.config.ramp).clamp_max(1.0)
        return self.config.ramp_from + (1.0 - self.config.ramp_from) * done

    def vectors(self, slots_BSE: Tensor) -> Tensor:
        return (slots_BSE + self.mlp(slots_BSE)) * (self.gain * self.rms * self.ramped() * self.strength)

    def forward(
        self, slots_BSE: Tensor, mask_BS: Tensor, positions_BS: Tensor, next_B: Tensor, receiver: Receiver
    ) -> Prefix:
        embeds_BSE = self.vectors(slots_BSE)
        if self.config.ramp and self.training and self.gain.requires_grad and torch.is_grad_enabled():
            self.steps += 1  # a step that the link learns from; on the device, so that a recorded step counts as well
        # soft tokens are tokens to the receiver: whole positions (learned position tables know no others)
        head = receiver.head_for(slots_BSE.shape[0])
        read = receiver.read(None, mask_BS, head, embeds_BTE=embeds_BSE, positions_BT=positions_BS.round().long())
        return replace(read, next_B=next_B)
