"""A mode that fails where a step would wait for the device: such a step cannot be recorded."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

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
