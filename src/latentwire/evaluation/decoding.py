"""How answers are written and read: alike under every condition, told in the results, greedy and whole by default.

No setting sees a gold answer. What is sampled is sampled by luck that belongs to the question, so neighbours in a batch
change nothing and two conditions that differ do not differ by luck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from latentwire.errors import UserError
from latentwire.prompt import PromptConfig

MAX_NEW_TOKENS = 32
"""Answers end here at the latest: the same for every example, so that no gold answer's length reaches the model."""


@dataclass(frozen=True)
class Decoding:
    """min_new_tokens, max_new_tokens: of an answer. eos_ban_steps: steps at which the end token is forbidden; the same
    wish from the other side, so the larger of this and ``min_new_tokens`` counts.

    first_temperature, first_top_p: the first token is drawn at this temperature among the likeliest tokens that
    together have this probability; at temperature 0 it is the likeliest, as all later ones always are. extract: what
    of the text is taken for the answer, of :data:`EXTRACTIONS`.
    """

    min_new_tokens: int = 0
    max_new_tokens: int = MAX_NEW_TOKENS
    eos_ban_steps: int = 0
    first_temperature: float = 0.0
    first_top_p: float = 1.0
    extract: str = "none"

    def check(self) -> Decoding:
        """Itself. UserError: a setting that is impossible, or that would do nothing."""
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is at least 1, not {self.max_new_tokens}")
        for name in ("min_new_tokens", "eos_ban_steps"):
            if not 0 <= getattr(self, name) <= self.max_new_tokens:
                most = f"0 to max_new_tokens ({self.max_new_tokens})"
                raise UserError(f"{name} is a number of tokens from {most}, not {getattr(self, name)}")
        if not 0 <= self.first_temperature <= 100:
            raise UserError(f"first_temperature is 0 (greedy) to 100, not {self.first_temperature:g}")
        if not 0 < self.first_top_p <= 1:
            raise UserError(f"first_top_p is a probability above 0 and at most 1, not {self.first_top_p:g}")
        if self.first_top_p < 1 and not self.first_temperature:
            raise UserError("first_top_p changes nothing while first_temperature is 0; give a temperature as well")
        if self.extract not in EXTRACTIONS:
            raise UserError(f"extract is one of {', '.join(EXTRACTIONS)}, not {self.extract!r}")
        return self

    @property
    def banned(self) -> int:
        """Steps at which the end token is forbidden."""
        return max(self.min_new_tokens, self.eos_ban_steps)

    def tree(self) -> dict[str, Any]:
        """As results hold it."""
        return asdict(self)

    def changed(self) -> dict[str, Any]:
        """What is not as it is by default."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}

    def answer(self, text: str, layout: PromptConfig) -> str:
        """What of a text is taken for the answer."""
        return EXTRACTIONS[self.extract](text, layout)


PLAIN = Decoding()
"""Greedy, to the end token or 32 tokens, the whole text."""


def first_line(text: str, layout: PromptConfig) -> str:
    """Up to the first line break."""
    return text.strip().partition("\n")[0].strip()


def within_layout(text: str, layout: PromptConfig) -> str:
    """Up to where a receiver begins to write the prompt anew (its next question, context or answer); an anchor that it
    repeats in front is left out."""
    words = [layout.head, layout.question.partition("{question}")[0], layout.anchor]
    words = [word.strip() for word in words if word.strip()]
    text = text.strip().removeprefix(layout.anchor.strip())
    ends = [place for word in words if (place := text.find(word)) >= 0]
    return text[: min(ends, default=len(text))].strip()


EXTRACTIONS: dict[str, Callable[[str, PromptConfig], str]] = {
    "none": lambda text, layout: text,
    "first-line": first_line,
    "layout": within_layout,
}
"""Ways of taking an answer out of what was said."""
