"""A penalty on a link's learned scale: the squared distance from 1 of the gain that multiplies all its slots.

Links have one where the adapter is ``linear`` or the injection reads soft tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig, Sent
from latentwire.receivers import Receiver


@ObjectiveConfig.register_subclass("scale")
@dataclass
class ScaleConfig(ObjectiveConfig):
    def build(self) -> Scale:
        return Scale(self)


class Scale(Objective):
    role = "passage"

    def fit(self, link: nn.Module, width: int, receiver: Receiver, encoder: nn.Module) -> None:
        if not gains(link):
            raise UserError(
                f"scale holds a link's learned gain near 1, and the link of {receiver.name!r} has none; take the "
                "adapter linear, an injection of soft tokens, or the objective rms, which measures the slots themselves"
            )

    def passage(self, sent: Sent, own: nn.Module | None) -> tuple[Tensor, dict[str, Tensor]]:
        gain = torch.stack(gains(sent.link)).float()
        return (gain - 1).square().mean(), {"gain": gain.detach().mean()}


def gains(link: nn.Module) -> list[Tensor]:
    """The single learned numbers of a link that scale everything it sends."""
    named = link.named_parameters()
    return [p for name, p in named if not p.dim() and name.rpartition(".")[2] in ("scale", "gain")]
