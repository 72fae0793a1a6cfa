"""What a sweep is made of, and what its file must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentwire.config import config_hash, decode, encode, override, read_plain_yaml
from latentwire.errors import UserError
from latentwire.types import MODES

METRICS = ("f1", "em", "first_token", "retention", "nll")
"""Scores that runs may be ranked by; of ``nll`` less is better."""
OWN = ("evaluate", "rank", "optuna")
"""Parts of a sweep's file that a typed ``PART.KEY=VALUE`` goes to; every other key is one of the training config."""


@dataclass
class EvaluateConfig:
    """What every finished run answers. questions: ``aside`` (the slice kept aside of the run's own questions, on which
    choices are made), ``valid`` (the questions that come along, for figures that are reported), or a file of rows. n:
    so many of them, drawn by ``seed``; 0 for all.

    ratios, receivers: all of the wire's where empty. conditions: ``text`` and ``none`` are the same for every run of
    the same receivers, and cost as much as ``latents`` each time; ``retention`` needs both. slots: K/V positions for
    each latent, or ``half``.
    """

    questions: str = "aside"
    n: int = 200
    ratios: list[int] = field(default_factory=list)
    bits: list[int] = field(default_factory=lambda: [16])
    conditions: list[str] = field(default_factory=lambda: ["latents"])
    receivers: list[str] = field(default_factory=list)
    mode: str = MODES[0]
    slots: Any = None
    seed: int = 0

    @property
    def hash(self) -> str:
        """Names the figures: the same wire asked otherwise has others."""
        return config_hash(encode(self))


@dataclass
class RankConfig:
    """The score that runs are sorted by: the mean of ``metric`` over the rows of ``condition``, of one receiver, ratio
    or number of bits where it is named (``""`` and 0: of all that were measured)."""

    metric: str = "f1"
    condition: str = "latents"
    receiver: str = ""
    ratio: int = 0
    bits: int = 0


@dataclass
class OptunaConfig:
    """A search by optuna. trials: in all, of all machines that work on the study, failed ones too. storage: a database
    that they share (default: a file in the sweep's folder). study: its name there (default: from the file's name and
    all that the scores depend on). space: by dotted key, a list of values, or ``{low: 1e-4, high: 1e-2, log: true}``,
    with ``step`` where wanted; whole numbers where both ends are. seed: of the sampler, where no ``storage`` is given.
    """

    trials: int = 20
    storage: str = ""
    study: str = ""
    space: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass
class SweepConfig:
    """A sweep's file. base: a training config, as a path beside the file or as a mapping. overrides: by dotted key, of
    every run; ``*`` stands for any one part.

    One of these says what is varied: ``grid``, every combination of the values of its keys; ``each``, the values of one
    key at a time; ``optuna``. baseline: the base itself is run too, and the others are judged against it.
    """

    base: Any = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    each: dict[str, list[Any]] = field(default_factory=dict)
    optuna: OptunaConfig | None = None
    baseline: bool = False
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    rank: RankConfig = field(default_factory=RankConfig)


def read(path: Path, typed: Sequence[str]) -> tuple[SweepConfig, list[str]]:
    """A sweep's file with what was typed of its own parts, and what was typed of the training config."""
    own = [item for item in typed if item.lstrip("-").split(".")[0] in OWN and "." in item.split("=")[0]]
    settings = decode(SweepConfig, override(read_plain_yaml(path), own))
    check(settings)
    return settings, [item for item in typed if item not in own]


def check(settings: SweepConfig) -> None:
    """Refuse what cannot work before anything is loaded."""
    if not settings.base:
        raise UserError("a sweep has no base; name a training config (base: ../sandbox/wire.yaml)")
    given = [name for name in ("grid", "each", "optuna") if getattr(settings, name)]
    if len(given) != 1:
        raise UserError(
            "a sweep says what it varies by one of grid (every combination), each (one key at a time) and optuna, "
            f"and this one {'by ' + ' and '.join(given) if given else 'by none of them'}"
        )
    varied = settings.optuna.space if settings.optuna else settings.grid or settings.each
    if empty := [key for key, values in varied.items() if values == []]:
        raise UserError(f"{given[0]} varies {empty[0]!r} over no values; list at least one")
    if both := [key for key in varied if key in settings.overrides]:
        raise UserError(f"{both[0]!r} stands in {given[0]} and in overrides; leave it out of one of them")
    if settings.optuna and not settings.optuna.space:
        raise UserError("optuna has no space; name what it may change (space: {rate: {low: 1e-4, high: 1e-2}})")
    if settings.optuna and settings.optuna.trials < 1:
        raise UserError(f"optuna.trials is a number from 1, not {settings.optuna.trials}")
    asked, rank = settings.evaluate, settings.rank
    if asked.n < 0:
        raise UserError(f"evaluate.n is a number of questions, or 0 for all of them, not {asked.n}")
    if asked.mode not in MODES:
        raise UserError(f"evaluate.mode is {' or '.join(MODES)}, not {asked.mode!r}")
    if not (asked.slots is None or asked.slots == "half" or (isinstance(asked.slots, int) and asked.slots > 0)):
        raise UserError(f"evaluate.slots is a number from 1 or half, not {asked.slots!r}")
    if rank.metric not in METRICS:
        raise UserError(f"rank.metric is one of {', '.join(METRICS)}, not {rank.metric!r}")
    if rank.condition not in asked.conditions:
        raise UserError(f"rank.condition {rank.condition!r} is not measured; evaluate.conditions has: "
                        f"{', '.join(asked.conditions)}")  # fmt: skip
    if rank.metric == "retention" and not {"text", "none"} <= set(asked.conditions):
        raise UserError("retention compares with text and none; add both to evaluate.conditions")
    for name, among in (("ratio", asked.ratios), ("bits", asked.bits), ("receiver", asked.receivers)):
        wanted = getattr(rank, name)
        if wanted and among and wanted not in among:
            raise UserError(f"rank.{name} {wanted!r} is not measured; evaluate has: {', '.join(map(str, among))}")
