"""Which model a receiver is: sixteen hex digits over its shape and its weights.

They are taken from the weights that are in memory already, so the checkpoint is read once, by whoever loads it. For a
large model that is still minutes of hashing or of copying from a GPU. So what was found for a large checkpoint is kept
in the cache, under what names its files: name, size, time of change and header of each safetensors file (in a hub's
snapshot also the blob it leads to, which is named by its hash). While files are the same, only headers are read.

Weights are hashed as bfloat16, so a copy loaded in bfloat16 or float32 is the same model. In 4 bits, or in float16
where the checkpoint is in another dtype, they are not, and those of layers that lie on disk are not in memory: then the
original is loaded once on the CPU, unless its digits are kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils.hub import cached_file

from latentwire.receivers.geometry import Geometry
from latentwire.weights import cache_dir

log = logging.getLogger(__name__)

LARGE = 1 << 28
"""Bytes of weights from which a fingerprint is kept in the cache: smaller ones are hashed in less than a second."""


class Identity:
    """Where a receiver came from. changed: its weights in memory are not the checkpoint's."""

    def __init__(self, path: str | Path, config: Any, changed: bool = False) -> None:
        self.path, self.config, self.changed = path, config, changed

    def of(self, geometry: Geometry, weights: dict[str, Tensor]) -> str:
        """Of the model in memory, or what is known of its files."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
        # of layers that lie on disk, memory holds no weights, and in 4 bits or float16 it holds others
        absent = self.changed or any(tensor.is_meta for tensor in weights.values())
        kept = self.kept(geometry) if absent or size >= LARGE else None
        if kept is not None and kept.is_file() and re.fullmatch("[0-9a-f]{16}", found := kept.read_text().strip()):
            return found
        found = hashed(geometry, self.original() if absent else weights)
        if kept is not None:
            write(kept, found)
        return found

    def kept(self, geometry: Geometry) -> Path | None:
        """The file in the cache for these very files of weights; None where there are none to go by."""
        files = shards(self.path, getattr(self.config, "_commit_hash", None))
        if not files:
            return None
        digest = hashlib.sha256(repr(geometry.shape()).encode())
        for file in files:
            at = file.stat()
            digest.update(f"{file.name} {file.resolve()} {at.st_size} {at.st_mtime_ns}".encode())
            with file.open("rb") as data:
                header = int.from_bytes(data.read(8), "little")
                digest.update(data.read(min(header, at.st_size)))
        return cache_dir() / "fingerprints" / digest.hexdigest()

    def original(self) -> dict[str, Tensor]:
        """Weights of the checkpoint as they were before they were quantised or put on disk, on the CPU."""
        log.warning("loading %s once as it is, to know which model it is; that is kept for the next time", self.path)
        return AutoModelForCausalLM.from_pretrained(self.path, dtype=torch.bfloat16).state_dict()


def hashed(geometry: Geometry, weights: dict[str, Tensor]) -> str:
    """Sixteen hex digits over shape and weights (as bfloat16: the same for a copy loaded in another precision)."""
    digest = hashlib.sha256(repr(geometry.shape()).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def shards(path: str | Path, commit: str | None) -> list[Path]:
    """The safetensors files of a checkpoint directory or of a hub id that has been loaded."""
    folder = Path(path)
    if not folder.is_dir():
        known = cached_file(
            str(path),
            "config.json",
            revision=commit,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
        )
        if known is None:
            return []
        folder = Path(known).parent
    return sorted(folder.glob("*.safetensors"))


def write(path: Path, text: str) -> None:
    """Whole or not at all: several processes may write the same. A cache that cannot be written is done without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as partial:
            partial.write(text)
        os.replace(partial.name, path)
    except OSError as error:
        log.warning("cannot keep the fingerprint in %s: %s", path.parent, error)
