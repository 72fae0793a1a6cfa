"""Checkpoints: atomic, pruned, without pickle, enough for an exact resume.

Batches, random cuts and dropout come from (seed, step), so a checkpoint needs only weights, optimiser moments, what the
objectives keep of their own, and where the run stands.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from latentwire.errors import UserError
from latentwire.training.shard import cut

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a run stands. text_steps, question_steps: the position in the data. smoothed, best: the smoothed metric now
    and at its best (lower is better). evaluated: the step it was last measured at. left: how many stages
    lie behind. skipped: steps that were not numbers.
    halved: factors on the weights of objectives. events, watch: what the collapse watch has seen and counts. pieces:
    parts of each kind of step that did not fit into memory at once.
    """

    step: int = 0
    total: int = 0
    text_steps: int = 0
    question_steps: int = 0
    smoothed: float | None = None
    best: float | None = None
    seconds: float = 0.0
    skipped: int = 0
    events: list[dict] = field(default_factory=list)
    evaluated: int = -1
    left: int = 0
    halved: dict[str, float] = field(default_factory=dict)
    watch: dict[str, dict] = field(default_factory=dict)
    pieces: dict[str, int] = field(default_factory=dict)


def save(
    directory: Path,
    wire: nn.Module,
    moments: dict[str, Any],
    progress: Progress,
    own: nn.Module | None = None,
    keep: int = 2,
) -> Path:
    """Write ``directory/step-N`` so that it is there whole or not at all, then drop all but the newest ``keep``.

    moments: an optimiser's ``state_dict()``. own: what training keeps beside the wire; a file of its own, if there is
    anything. OSError: it could not be written,
    not even in the place of the oldest of several; what was there before still is, but for that one.
    """
    final = directory / f"step-{progress.step:07d}"
    part = directory / f".part-{os.getpid()}"
    while True:
        shutil.rmtree(part, ignore_errors=True)
        try:
            _write(part, wire, moments, progress, own)
            break
        except (OSError, SafetensorError) as error:
            shutil.rmtree(part, ignore_errors=True)  # on a full disk it stands in everyone's way
            older = sorted(directory.glob("step-*"))[:-1]
            # other errors than a full disk are no reason to give anything up
            if not older or not is_full(error):
                raise OSError(*error.args) from error
            log.warning("step %d cannot be saved (%s); trying again without %s", progress.step, error, older[0].name)
            shutil.rmtree(older[0], ignore_errors=True)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(part, final)
    for old in sorted(directory.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def is_full(error: Exception) -> bool:
    """Whether a file was not written for want of space (safetensors only says so in words)."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)


def _write(part: Path, wire: nn.Module, moments: dict[str, Any], progress: Progress, own: nn.Module | None) -> None:
    part.mkdir(parents=True)
    for name, module in (("wire", wire), ("own", own)):
        if module is not None and (state := module.state_dict()):
            save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, part / f"{name}.safetensors")
    kept = {}
    for number, state in moments["state"].items():
        for key, value in state.items():
            kept[f"{number}.{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    save_file(kept, part / "optimizer.safetensors")
    (part / "progress.json").write_text(json.dumps(asdict(progress), indent=1))


def load(
    directory: Path, wire: nn.Module, optimizer: torch.optim.Optimizer, own: nn.Module | None = None
) -> Progress | None:
    """Restore the newest checkpoint that is whole; a damaged one is reported and the one before it is used. None: there
    is none. UserError: there are some, and all are damaged."""
    found = sorted(directory.glob("step-*"), reverse=True)
    for path in found:
        try:
            weights = load_file(path / "wire.safetensors")
            kept = load_file(path / "own.safetensors") if own is not None and own.state_dict() else {}
            moments = load_file(path / "optimizer.safetensors")
            progress = Progress(**json.loads((path / "progress.json").read_text()))
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            log.warning("checkpoint %s is damaged (%s); trying the one before it", path, error)
            continue
        # each process reads all, and keeps its share of what is split
        here = wire.state_dict()
        wire.load_state_dict({name: cut(tensor, here.get(name)) for name, tensor in weights.items()}, strict=True)
        if own is not None:
            own.load_state_dict(kept, strict=True)
        state: dict[int, dict[str, torch.Tensor]] = {}
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for key, value in moments.items():
            number, _, leaf = key.partition(".")
            p = parameters[int(number)]
            state.setdefault(int(number), {})[leaf] = cut(value, p) if value.shape == p.shape else value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return progress
    if found:
        raise UserError(f"no checkpoint in {directory} is whole; --no-resume starts over, and removes them")
    return None
