"""How a task wants its answers written, out of the words in which tasks say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentwire.errors import UserError

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names under which tasks say how long an answer may be; the first that is there counts, as it does in the harness."""
MEANINGLESS = ("temperature", "top_p", "top_k", "min_p", "seed")
"""What greedy decoding has no use for; the harness writes some of it into every task."""


@dataclass(frozen=True)
class Asked:
    """tokens: of an answer, at most. until: it ends in front of the first of these."""

    tokens: int
    until: tuple[str, ...]


def asked_of(generation: dict[str, Any], tokens: int) -> Asked:
    """The task's ``generation_kwargs``; ``tokens`` where they name no number. UserError: they ask for something else
    than greedy decoding."""
    if generation.get("do_sample"):
        raise UserError("the model latentwire decodes greedily; give the task do_sample: false")
    known = ("until", "do_sample", *LENGTHS, *MEANINGLESS)
    if strange := [key for key in generation if key not in known]:
        raise UserError(f"generation_kwargs: {strange[0]!r} is not known to the model latentwire; it has until and "
                        "max_gen_toks")  # fmt: skip
    most = next((generation[key] for key in LENGTHS if generation.get(key) is not None), tokens)
    until = generation.get("until") or ()
    words = (until,) if isinstance(until, str) else tuple(until)
    return Asked(int(most), tuple(word for word in words if word))


def cut_at(text: str, until: tuple[str, ...]) -> str:
    """What stands in front of the first of these words."""
    return text[: min((place for word in until if (place := text.find(word)) >= 0), default=len(text))]
