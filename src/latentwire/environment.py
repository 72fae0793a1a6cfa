"""Where something ran: versions and device, as results and runs record them."""

from __future__ import annotations

import platform
from typing import Any

import torch
import transformers

from latentwire import __version__


def versions() -> dict[str, str]:
    """Of what figures depend on."""
    return {
        "latentwire": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def device_name(device: torch.device) -> str:
    """A GPU's name as its maker gives it, else ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def environment(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """``versions``, ``device`` and ``processes``."""
    return {"versions": versions(), "device": device_name(device), "processes": processes}
