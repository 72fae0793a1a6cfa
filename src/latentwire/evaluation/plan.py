"""Which rows are to be measured, and in what order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from latentwire.codecs import Codec, by_bits
from latentwire.conditions import Condition, VectorCondition
from latentwire.errors import UserError
from latentwire.evaluation.results import JOINT, Key

ORDER = (
    *("text", "none", "latents", "budget-question", "budget", "same-bytes", "mean-pooled", "pca"),
    *("zero", "shuffled", "wrong", "replay-raw", "replay-anchor", "replay-adapter"),
)
"""All conditions in the order in which they are measured; those that give vectors only if they are asked for."""
ALL = "all"
"""Asks for every condition."""


@dataclass(frozen=True)
class Job:
    """One row that is to be measured. codec: of the packet, also where the row itself has no bits."""

    key: Key
    condition: Condition
    codec: Codec


def conditions_of(asked: Sequence[str] | None) -> list[str]:
    """Names of the conditions that were asked for, each once. UserError: there is none of that name."""
    known = Condition.known()
    if asked is None:
        return [name for name in ORDER if known[name].by_default]
    if unknown := [name for name in asked if name not in known and name != ALL]:
        raise UserError(f"there is no condition {unknown[0]!r}; there are: {', '.join(sorted(known))} (or {ALL})")
    return list(dict.fromkeys(name for word in asked for name in (ORDER if word == ALL else (word,))))


def jobs_of(
    names: list[str],
    conditions: list[str],
    ratios: Sequence[int],
    bits: Sequence[float],
    codec_of: Callable[[float], Codec] = by_bits,
) -> list[Job]:
    """Receivers × conditions, each at the ratios and bits on which it depends. codec_of: the wire's, for codes."""
    known = Condition.known()
    ratios, bits = list(dict.fromkeys(ratios)), list(dict.fromkeys(bits))
    codecs = {bit: codec_of(bit) for bit in bits}
    plan = []
    for receiver in names:
        for name in conditions:
            condition = known[name]()
            for ratio in ratios if condition.by_ratio else (None,):
                for bit in bits if condition.by_bits else bits[:1]:
                    if bit < 1 and isinstance(condition, VectorCondition):
                        continue  # codes are of latents, and of no other vectors
                    key = (receiver, name, ratio, bit if condition.by_ratio else None)
                    plan.append(Job(key, condition, codecs[bit]))
    return plan


def joint_jobs(jobs: list[Job], names: list[str], asked: Sequence[str], conditions: list[str]) -> dict[Key, list[Job]]:
    """For each joint row the rows of the receivers whose answers it weighs. UserError: there is nothing to weigh."""
    if not asked:
        return {}
    if len(names) < 2:
        raise UserError(f"answers are weighed jointly by several receivers, and this evaluation has only {names[0]!r}")
    if strange := [name for name in asked if name not in conditions]:
        raise UserError(
            f"answers under {strange[0]!r} cannot be weighed jointly, for they are not measured; "
            f"measured are: {', '.join(conditions)}"
        )
    # the name says whose answers these are: a run with other receivers has other joint rows
    receiver = JOINT + "+".join(names)
    found: dict[Key, list[Job]] = {}
    for job in jobs:
        _, condition, ratio, bits = job.key
        if condition in asked:
            found.setdefault((receiver, condition, ratio, bits), []).append(job)
    return found
