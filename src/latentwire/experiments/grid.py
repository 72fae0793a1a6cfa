"""From a sweep's file to the training config of every run, each named by its hash."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentwire.config import config_hash, decode, put, read_override, read_yaml
from latentwire.errors import UserError
from latentwire.experiments.settings import SweepConfig
from latentwire.training.check import check
from latentwire.training.config import TrainConfig


@dataclass(frozen=True)
class Planned:
    """One run. name: hash of its config. overrides: what was changed of the base, by dotted key; nothing in the base
    run itself."""

    name: str
    overrides: dict[str, Any]
    config: TrainConfig


def base_tree(
    settings: SweepConfig, folder: Path, typed: Sequence[str] = (), smoke: Sequence[str] = ()
) -> dict[str, Any]:
    """The tree that all runs share: the base, the file's overrides, ``smoke``, and what was typed, in this order.

    folder: where the sweep's file lies. UserError: a key is typed that the sweep varies.
    """
    tree = copy.deepcopy(settings.base) if isinstance(settings.base, dict) else read_yaml(folder / str(settings.base))
    given = [*settings.overrides.items(), *map(read_override, [*smoke, *typed])]
    varied = settings.optuna.space if settings.optuna else settings.grid or settings.each
    if both := [key for key, _ in map(read_override, typed) if key in varied]:
        raise UserError(f"{both[0]!r} is what this sweep varies; change its values in the file")
    for key, value in given:
        lay(tree, key, value)
    return tree


def lay(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set what stands at a dotted key, at each place that a ``*`` in it may mean."""
    for one in places(tree, key):
        put(tree, one, copy.deepcopy(value))


def places(tree: dict[str, Any], key: str) -> list[str]:
    """The keys that one with ``*`` stands for, as they are in the tree.

    >>> places({"links": {"llama": {}, "gpt2": {}}}, "links.*.rank")
    ['links.llama.rank', 'links.gpt2.rank']
    """
    head, star, rest = key.partition("*")
    if not star:
        return [key]
    node: Any = tree
    for name in filter(None, head.split(".")):
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict) or not node:
        raise UserError(f"override {key!r}: nothing in the base stands for its *")
    return [one for name in node for one in places(tree, f"{head}{name}{rest}")]


def planned(tree: dict[str, Any], overrides: dict[str, Any]) -> Planned:
    """The run that differs from the base by ``overrides``. UserError: its config cannot work, and which run it is."""
    tree = copy.deepcopy(tree)
    for key, value in overrides.items():
        lay(tree, key, value)
    try:
        config = decode(TrainConfig, tree)
        check(config)
    except UserError as error:
        raise UserError(f"the run with {told(overrides)}: {error}" if overrides else str(error)) from None
    return Planned(config_hash(config), overrides, config)


def plan(settings: SweepConfig, tree: dict[str, Any]) -> list[Planned]:
    """All runs of a sweep that can be said beforehand (of optuna's: the base run), the base run first. Two that come to
    the same config are one run."""
    changes: list[dict[str, Any]] = [{}] if settings.baseline else []
    if settings.grid:
        changes += [
            dict(zip(settings.grid, values, strict=True)) for values in itertools.product(*settings.grid.values())
        ]
    changes += [{key: value} for key, values in settings.each.items() for value in values]
    found: dict[str, Planned] = {}
    for change in changes:
        run = planned(tree, change)
        found.setdefault(run.name, run)
    return list(found.values())


def told(overrides: dict[str, Any], short: dict[str, str] | None = None) -> str:
    """``rate=0.01 passages=8``, with the keys as ``short`` has them; ``base`` where nothing was changed."""
    return " ".join(f"{(short or {}).get(key, key)}={value}" for key, value in overrides.items()) or "base"


def shortened(keys: list[str]) -> dict[str, str]:
    """For each dotted key the shortest end, of three parts or more, that no other has.

    >>> shortened(["objectives.kl.weight.value", "objectives.answer.weight.value", "rate"])["rate"]
    'rate'
    >>> shortened(["objectives.kl.weight.value", "objectives.answer.weight.value"])["objectives.kl.weight.value"]
    'kl.weight.value'
    """
    found = {}
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[-count:]) for count in range(min(3, len(parts)), len(parts) + 1))
        found[key] = next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)
    return found
