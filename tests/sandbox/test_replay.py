"""A replayed step is a plain step: same figure, same gradients, each kind recorded once."""

from __future__ import annotations

import torch

from latentwire.sandbox.feed import Batch, dummy
from latentwire.sandbox.replay import Replay


class Tape:
    """Stands in for a CUDA graph: recording computes nothing, replaying runs the function on its own tensors."""

    def __init__(self, work, pool):
        self.work, self.left = work, torch.zeros(())

    def replay(self):
        self.left.copy_(self.work())

    def pool(self):
        return None


def batch(seed: int, packed: bool) -> Batch:
    made = dummy(2, 8, packed, torch.device("cpu"))
    ids = torch.randint(0, 9, (2, 8), generator=torch.Generator().manual_seed(seed))
    return Batch(ids, made.position, ids.roll(-1, 1), made.role, made.allowed)


def trained(wrap, steps: int = 8) -> tuple[torch.Tensor, list[float]]:
    weight = torch.linspace(-1, 1, 9).requires_grad_()
    weight.grad = torch.zeros_like(weight)

    def work(given: Batch) -> torch.Tensor:
        seen = 1.0 if given.allowed is None else given.allowed.float().mean()
        loss = (weight[given.ids] * weight[given.target] * seen).sum()
        loss.backward()
        return loss.detach()

    run, said = wrap(work), []
    for step in range(steps):
        said.append(float(run(batch(step, packed=step % 2 == 1))))
    return weight.grad, said


def test_figures_and_gradients_are_those_of_plain_steps():
    recorded = []

    def record(work, pool):
        recorded.append(Tape(work, pool))
        return recorded[-1], recorded[-1].left

    gradient, said = trained(lambda work: work)
    replayed, said_again = trained(lambda work: Replay(work, warm=2, record=record).run)
    assert len(recorded) == 2, "text and packed questions are recorded once each"
    torch.testing.assert_close(replayed, gradient)
    assert said_again == said
