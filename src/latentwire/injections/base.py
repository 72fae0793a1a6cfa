"""What every injection is: slots in, the prefix of a frozen receiver out."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from latentwire.config import Choice
from latentwire.receivers import Geometry, Receiver
from latentwire.types import Prefix


@dataclass
class InjectionConfig(Choice):
    """Base of all injection configs. only_vectors: the receiver gets nothing but ``Injection.vectors``, read as tokens
    are; others may then read them in its place."""

    only_vectors: ClassVar[bool] = False

    def slot_width(self, geometry: Geometry) -> int:
        """How wide the adapter has to make a slot: as wide as the receiver, unless an injection wants it otherwise."""
        return geometry.width

    def build(self, geometry: Geometry) -> Injection:
        """The module for a receiver of this geometry, untrained and uncalibrated."""
        raise NotImplementedError


class Injection(nn.Module):
    """``forward`` gives head and slots as a prefix. Whatever is read on top of it, the slots act on every token.

    strength: what is injected is multiplied by it: vectors, or what made keys and values differ by from the receiver's
    mean ones, or what a block adds. 1, as it was trained, but for an evaluation that asks otherwise.
    """

    strength: float = 1.0
    reads: ClassVar[bool] = False
    """Whether the receiver's first layer reads vectors that come of the slots (soft tokens)."""

    @contextmanager
    def at_strength(self, gain: float) -> Generator[None]:
        """Inject so many times as strongly, also what injections inside this one inject."""
        inside = [module for module in self.modules() if isinstance(module, Injection)]
        try:
            for module in inside:
                module.strength = gain
            yield
        finally:
            for module in inside:
                module.strength = 1.0

    def calibrate(self, receiver: Receiver, texts: list[str]) -> None:
        """Take scales from the receiver on plain text before training; kept in the wire as buffers."""

    def kv_positions(self, slots_B: Tensor) -> Tensor:
        """How many K/V positions stand for so many slots (int64 [B]): what the receiver has to hold."""
        return slots_B

    def vectors(self, slots_BSE: Tensor) -> Tensor:
        """The slots as the receiver's first layer meets them, if it reads any; otherwise the slots themselves."""
        return slots_BSE

    def forward(
        self, slots_BSE: Tensor, mask_BS: Tensor, positions_BS: Tensor, next_B: Tensor, receiver: Receiver
    ) -> Prefix:
        """Head and slots as a prefix.

        mask_BS: bool, which slots are there. positions_BS: float, where in the receiver's count of positions each slot
        stands. next_B: int64, the position of the first token behind them.
        """
        raise NotImplementedError
