"""Modes that fail where work would wait for the device or come from another: such work cannot be recorded."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "masked_scatter", "equal.default")
"""Operations that wait for the device, or whose result has a shape that depends on the data."""


class NothingWaits(TorchDispatchMode):
    """Fails where a step would wait for the device."""

    def __torch_dispatch__(self, func, types, args: Any = (), kwargs=None):
        name = str(func)
        assert not any(word in name for word in WAITS), f"{name} waits for the device"
        if "index.Tensor" in name or "index_put" in name:
            assert not any(t is not None and t.dtype is torch.bool for t in args[1]), f"{name} by a mask"
        return func(*args, **(kwargs or {}))


class StaysOn(TorchDispatchMode):
    """Fails where a tensor is made, read or left elsewhere than on a device; single numbers may come from the CPU."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func, types, args: Any = (), kwargs=None):
        out = func(*args, **(kwargs or {}))
        copies = "copy" in str(func)
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != self.device:
                assert tensor.ndim == 0 and not copies, f"{func} reads from {tensor.device}"
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                assert tensor.device.type == self.device, f"{func} leaves something on {tensor.device}"
        return out
