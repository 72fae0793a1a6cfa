"""Which objectives make sense together: refused by name before anything is loaded."""

from __future__ import annotations

from latentwire.errors import UserError
from latentwire.objectives.base import Objective, ObjectiveConfig


def check(configs: dict[str, ObjectiveConfig]) -> None:
    """UserError where an objective lacks another that it needs, or has a setting that is out of range."""
    made = {key: config.build() for key, config in configs.items()}
    rows = {each.source for each in made.values() if each.role == "rows" and each.labelled}
    if not rows:
        raise UserError(
            "no objective puts rows behind a passage: beside those named there must be one like answer, continuation, "
            "recall or reconstruction"
        )
    for key, each in made.items():
        if each.role == "judge" and each.source and each.source not in rows:
            raise UserError(
                f"objective {key!r} judges rows of {each.source}, and no objective has any; name one beside it "
                f"({'answer' if each.source == 'questions' else 'continuation, recall or reconstruction'})"
            )
        if each.role == "rows" and not each.labelled and not any(one.taught for one in made.values()):
            raise UserError(
                f"{key!r} has rows without right answers; name a judge that asks a teacher, like kl, beside it"
            )
        _check_kept(key, each, made)
        weight = each.config.weight
        if weight.kind != "gated":
            continue
        if weight.after not in made:
            raise UserError(
                f"the weight of {key!r} is gated on {weight.after!r}; objectives are named: {', '.join(made)}"
            )
        if not made[weight.after].cosine:
            able = ", ".join(name for name, one in made.items() if one.cosine) or "none of these objectives does"
            raise UserError(
                f"the weight of {key!r} is gated on {weight.after!r}, which measures no cosine of what it reconstructs "
                f"({able}); take one like embedding-reconstruction"
            )
        if weight.after == key:
            raise UserError(f"the weight of {key!r} is gated on itself and would never open")


def _check_kept(key: str, each: Objective, made: dict[str, Objective]) -> None:
    """What is kept of the teacher saves its reading only if it is all that is asked of it."""
    if not each.cache:
        return
    for other, judge in made.items():
        if judge.taught and not judge.cache and judge.source in (None, "questions"):
            raise UserError(
                f"{key!r} has a cache of the teacher, but {other!r} needs the teacher itself to read the same rows of "
                f"questions; leave {key}.cache out"
            )
        if judge.cache and (judge.cache, judge.top) != (each.cache, each.top):
            raise UserError(f"{key!r} and {other!r} share the kept teacher; give both the same cache and top")
