"""A penalty on slots that are larger or smaller than the receiver's embeddings.

The first implementation clamped them, which took the scale away from learning; a penalty can be paid where another
scale is worth it. In logarithms, so that twice as large costs what half as large does.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from latentwire.objectives.base import Objective, ObjectiveConfig, Sent
from latentwire.objectives.vectors import mean_where


@ObjectiveConfig.register_subclass("rms")
@dataclass
class RMSConfig(ObjectiveConfig):
    """each: every slot for itself; otherwise all slots of a step together, which leaves slots free among themselves."""

    each: bool = True

    def build(self) -> RMS:
        return RMS(self)


class RMS(Objective):
    """Squared logarithm of the root mean square of slots in units of that of the passages' embeddings."""

    role = "passage"
    config: RMSConfig

    def passage(self, sent: Sent, own: nn.Module | None) -> tuple[Tensor, dict[str, Tensor]]:
        square_BS = sent.slots_BSE.square().mean(-1)
        together = mean_where(square_BS, sent.mask_BS)
        goal = sent.token_rms.square().clamp_min(1e-12)

        def cost(square: Tensor) -> Tensor:
            return (0.5 * (square.clamp_min(1e-12) / goal).log()).square()

        loss = mean_where(cost(square_BS), sent.mask_BS) if self.config.each else cost(together)
        return loss, {"ratio": (together / goal).sqrt().detach()}
