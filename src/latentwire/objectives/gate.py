"""Weights that wait until another objective reconstructs well enough (``kind: gated`` of a schedule).

What is waited for is a smoothed figure of training, so it is state: it lies in buffers, which a checkpoint holds, and
nothing waits for the device to find out whether a gate is open.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from latentwire.objectives.base import Objective


class Gates(nn.Module):
    """One gate for each objective with a gated weight. The smoothed cosines [G] start at 0, where gates are closed."""

    smoothed_G: Tensor
    threshold_G: Tensor
    fresh_G: Tensor

    def __init__(self, objectives: dict[str, Objective]) -> None:
        super().__init__()
        gated = {key: each.config.weight for key, each in objectives.items() if each.config.weight.kind == "gated"}
        self.place = {key: number for number, key in enumerate(gated)}
        self.after = [weight.after for weight in gated.values()]
        if gated:
            self.register_buffer("smoothed_G", torch.zeros(len(gated)))
            self.register_buffer("threshold_G", torch.tensor([w.threshold for w in gated.values()]), persistent=False)
            share = torch.tensor([1 - 0.5 ** (1 / w.over) for w in gated.values()])
            self.register_buffer("fresh_G", share, persistent=False)

    def forward(self, keys: Iterable[str], weight_N: Tensor) -> Tensor:
        """The weights of objectives ``keys``, 0 where a gate is closed."""
        if not self.place:
            return weight_N
        open_G = (self.smoothed_G >= self.threshold_G).float()
        one = torch.ones_like(open_G[0])
        return weight_N * torch.stack([open_G[self.place[key]] if key in self.place else one for key in keys])

    @torch.no_grad()
    def measured(self, figures: dict[str, Tensor]) -> Tensor | None:
        """What each gate waits for, [G], the mean over receivers of one step's figures; NaN where there is none."""
        if not self.place:
            return None
        found = [[value for key, value in figures.items() if key.endswith(f"/{after}/cosine")] for after in self.after]
        none = torch.full_like(self.smoothed_G[0], torch.nan)
        return torch.stack([torch.stack(values).mean() if values else none for values in found])

    @torch.no_grad()
    def look(self, measured_G: Tensor | None) -> dict[str, Tensor]:
        """Take one step's figures into account; what is smoothed of them, to log. A figure that is NaN changes
        nothing."""
        if measured_G is not None:
            fresh_G = self.fresh_G * measured_G.isfinite()
            self.smoothed_G.lerp_(measured_G.nan_to_num(), fresh_G)
        return {f"gate/{key}": self.smoothed_G[number].clone() for key, number in self.place.items()}
