"""Every registered method, with the least it needs to be built. A new method is found here by being registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentwire import adapters, encoders, injections, objectives
from latentwire.adapters import AdapterConfig
from latentwire.config import decode
from latentwire.encoders import EncoderConfig
from latentwire.injections import InjectionConfig
from latentwire.objectives import ObjectiveConfig

ROOMS = (adapters, encoders, injections, objectives)
D_Z = 16

NEEDS: dict[str, dict[str, Any]] = {
    "lm": {"init": "llama", "ratios": [4, 8], "window": 64},
    "byte": {"ratios": [4, 8], "window": 64, "width": 16, "layers": 1, "heads": 2},
    "mlp": {"layers": 1, "head_dim": 8},
    "unfold": {"layers": 1, "head_dim": 8},
    "kv-prefix": {"multiple": 1.0},
    "soft-tokens": {"multiple": 1.0},
}
"""What a method must be told, or is told to be small; all others get their defaults."""


def names(family: type) -> list[str]:
    """Registered methods of a family, in order."""
    return sorted(family.known())  # ty: ignore[missing-attribute]


ENCODERS, ADAPTERS = names(EncoderConfig), names(AdapterConfig)
INJECTIONS, OBJECTIVES = names(InjectionConfig), names(ObjectiveConfig)


def config(family: type, name: str, readers: dict[str, Path], **more: Any) -> Any:
    """The config of one method; names of readers stand for their directories."""
    tree = {"type": name, **NEEDS.get(name, {}), **more}
    if tree.get("init") in readers:
        tree["init"] = str(readers[tree["init"]])
    if family is EncoderConfig:
        tree["d_z"] = D_Z
    return decode(family, tree)
