"""What holds for all rows of a file: results of another setting are never beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentwire.errors import UserError
from latentwire.evaluation.decoding import PLAIN, Decoding
from latentwire.types import MODES, Example
from latentwire.wire import Wire

MOST_GAIN = 100.0


@dataclass(frozen=True)
class Setting:
    """mode: of ``MODES``. slots: K/V positions for each latent, ``"half"`` for half as many as it stands for tokens,
    None for what each link gives first. gain: what is injected is multiplied by it. seed: of controls, intervals and
    what is drawn. decoding: how answers are written.
    """

    mode: str = "context"
    slots: int | str | None = None
    gain: float = 1.0
    seed: int = 0
    decoding: Decoding = PLAIN

    def check(self, wire: Wire, ratios: Sequence[int], names: list[str]) -> None:
        """UserError: this wire cannot be measured so."""
        if self.mode not in MODES:
            raise UserError(f"mode is {' or '.join(MODES)}, not {self.mode!r}")
        for ratio in ratios:
            wire.encoder.check_ratio(ratio)
        if isinstance(self.slots, str) and self.slots != "half":
            raise UserError(f"slots is a number or 'half', not {self.slots!r}")
        if not 0 < self.gain <= MOST_GAIN:
            raise UserError(f"gain is a number above 0 and at most {MOST_GAIN:g}, 1 as trained, not {self.gain:g}")
        self.decoding.check()
        for name in names:
            window = wire.get_receiver(name).geometry.window
            if self.decoding.max_new_tokens > window // 2:
                raise UserError(f"{self.decoding.max_new_tokens} new tokens leave too little of the window of {name} "
                                f"({window}) for a prompt; max_new_tokens is at most half of it")  # fmt: skip
            try:
                for ratio in ratios:
                    self.slots_of(wire, name, ratio)
            except UserError as error:
                raise UserError(f"{name} cannot read that many slots ({error}); --receivers leaves it out") from None

    def slots_of(self, wire: Wire, receiver: str, ratio: int | None) -> int:
        """K/V positions for each latent of a row. UserError: more or fewer than the link was made for."""
        link: Any = wire.links[receiver]
        if ratio is None or self.slots is None:
            return link.slots()
        return link.slots(ratio // 2 if self.slots == "half" else int(self.slots))


def check_examples(examples: Sequence[Example]) -> None:
    """UserError: no examples, or one without a context."""
    if not examples:
        raise UserError("there are no examples to evaluate on")
    for example in examples:
        if not example.context.strip():
            raise UserError(f"example {example.id!r} has an empty context; there is nothing to encode, leave it out")
