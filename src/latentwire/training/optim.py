"""The optimisers of a wire: AdamW, or Muon for the matrices with AdamW for the rest.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal matrix, which spends the same step on
every direction: small language models reach a given loss with about a third fewer tokens than with AdamW. Updates are
scaled as in Moonlight (Liu et al. 2025), so both parts share one learning rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from latentwire.training.shard import cut, local, split_as, whole

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
MOMENTUM = 0.95
GATHERED = 2**27
"""Numbers of split matrices that are whole at a time."""
OPTIMIZERS = ("adamw", "muon")


def orthogonal(stack_NRC: Tensor, steps: int = 5) -> Tensor:
    """Nearly orthogonal matrices with the singular vectors of ``stack_NRC`` (rows <= columns), by Newton-Schulz."""
    a, b, c = _COEFFICIENTS
    x = stack_NRC.to(torch.bfloat16 if stack_NRC.is_cuda else torch.float32)
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def matrices(modules: Iterable[nn.Module]) -> set[int]:
    """Ids of the weights that Muon takes: those of linear layers (embeddings are tables of vectors, not maps)."""
    return {id(m.weight) for module in modules for m in module.modules() if isinstance(m, nn.Linear)}


class MuonAdamW(torch.optim.AdamW):
    """AdamW whose groups with ``muon: True`` (matrices only) are stepped by Muon."""

    def __init__(self, groups: list[dict[str, Any]], **kwargs: Any) -> None:
        super().__init__([{"muon": False, **group} for group in groups], **kwargs)

    @torch.no_grad()
    def clip(self, norm: Tensor, limit: float) -> Tensor:
        """Scale all gradients, whose norm is ``norm``, down to ``limit``; returns whether the norm is a number.

        If it is none, the step must not reach the weights: fused AdamW leaves everything as it is, other parameters get
        a gradient of zero, which only lets the moments decay. Fused AdamW does both while it reads the gradients, a
        pass over all of them less each: 2.5 % of a step with an encoder of 1B.
        """
        gradients = [(p, p.grad) for group in self.param_groups for p in group["params"] if p.grad is not None]
        split = any(isinstance(gradient, DTensor) for _, gradient in gradients)
        good, fused = torch.isfinite(norm), self.defaults["fused"] and not split
        over = ((norm + 1e-6) / limit).clamp_min(1.0)
        self.grad_scale, self.found_inf = (over.float(), (~good).float()) if fused else (None, None)
        muon = {id(p) for group in self.param_groups if group["muon"] for p in group["params"]}
        for p, gradient in gradients:
            if not fused or id(p) in muon:
                share = local(gradient)
                share = torch.where(good.to(share.device), share / over.to(share.device), 0.0)
                p.grad = split_as(share, gradient)
        return good

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # ty: ignore[incompatible-method-override]
        """One step of every group."""
        whole = self.param_groups
        try:
            self.param_groups = [group for group in whole if not group["muon"]]
            super().step(closure)
        finally:
            self.param_groups = whole
        for group in whole:
            if group["muon"]:
                self._muon(group)

    def _muon(self, group: dict[str, Any]) -> None:
        stacks: dict[tuple[Any, ...], list[Tensor]] = {}
        for p in group["params"]:
            if p.grad is not None:
                # a tall matrix counts as its transpose, and equal shapes are made orthogonal in one product
                stacks.setdefault((p.device, *sorted(p.shape)), []).append(p)
        for (_, *shape), every in stacks.items():
            many = max(GATHERED // (shape[0] * shape[1]), 1) if isinstance(every[0], DTensor) else len(every)
            for start in range(0, len(every), many):
                self._orthogonal(group, every[start : start + many], shape)

    def _orthogonal(self, group: dict[str, Any], members: list[Tensor], shape: list[int]) -> None:
        """Step matrices of one shape, as shares where they are split; what is made orthogonal is whole."""
        for p in members:
            if not self.state[p]:
                # AdamW asks every state for a step when it is loaded
                self.state[p] = {"step": torch.zeros(()), "momentum": torch.zeros_like(p)}
        momentum = [local(self.state[p]["momentum"]) for p in members]
        fresh = [local(p.grad) for p in members if p.grad is not None]
        torch._foreach_lerp_(momentum, fresh, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(fresh, momentum, MOMENTUM)
        ahead = [whole(split_as(u, p)) for u, p in zip(ahead, members, strict=True)]
        tall = [p.shape != torch.Size(shape) for p in members]
        made = orthogonal(torch.stack([u.mT if t else u for u, t in zip(ahead, tall, strict=True)])).float()
        updates = [u.mT if t else u for u, t in zip(made.unbind(0), tall, strict=True)]
        updates = [local(cut(u, p)) for u, p in zip(updates, members, strict=True)]
        weights = [local(p) for p in members]
        torch._foreach_mul_(weights, 1.0 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, updates, alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)


@torch.no_grad()
def total_norm(gradients: list[Tensor]) -> Tensor:
    """Euclidean norm of all numbers together, those of other processes' shares too, on the first one's device."""
    total = torch.nn.utils.get_total_norm(x for x in gradients if not isinstance(x, DTensor))
    if split := [local(x) for x in gradients if isinstance(x, DTensor)]:
        square = torch.nn.utils.get_total_norm(split).square()
        distributed.all_reduce(square)
        total = (total.to(square.device).square() + square).sqrt()
    return total
