"""Several processes as one run (``torchrun --nproc-per-node 2 -m latentwire train …``).

Each process draws passages of its own; gradients are averaged behind the backward pass, so every process makes the same
step. Averaging is one call on all gradients laid end to end, which a recorded step (``graphs.py``) allows and a wrapped
module would not. What depends on a clock is decided by the first process.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor


class Together:
    """rank: number of this process. world: how many there are. With one, every method does nothing."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world
        self._said: Tensor | None = None

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    @torch.no_grad()
    def start_alike(self, module: nn.Module) -> None:
        """Give every process the first one's weights."""
        if self.world > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                distributed.broadcast(tensor.data, 0)

    @torch.no_grad()
    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average gradients over processes; which parameters have one must not differ between them. Those that are
        split (``shard.py``) are averaged already."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
        if not gradients:  # a step that nothing is learnt from
            return
        flat = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        parts = flat.split([g.numel() for g in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    def same(self, numbers: list[float], device: torch.device) -> list[float]:
        """The first process's ``numbers``: what is decided by them is then decided alike."""
        if self.world == 1:
            return numbers
        told = torch.tensor(numbers, dtype=torch.float64, device=device)
        distributed.broadcast(told, 0)
        return told.tolist()

    @torch.no_grad()
    def mean(self, figures: Tensor | None) -> Tensor | None:
        """The mean of ``figures`` over processes (each has drawn the same kind of step); None stays None."""
        if self.world > 1 and figures is not None:
            distributed.all_reduce(figures)
            figures = figures / self.world
        return figures

    def any(self, said: bool, device: torch.device) -> bool:
        """Whether any process said so: at this call if there is one, else at the call before. So the answer is there
        when it is looked at, and no device waits; all processes get the same one."""
        if self.world == 1:
            return said
        before, self._said = self._said, torch.tensor([float(said)], device=device)
        distributed.all_reduce(self._said, distributed.ReduceOp.MAX)
        return before is not None and bool(before.item())

    def agree(self, number: int, device: torch.device) -> int:
        """The first process's ``number``."""
        if self.world == 1:
            return number
        told: Tensor = torch.tensor([number], dtype=torch.int64, device=device)
        distributed.broadcast(told, 0)
        return int(told.item())
