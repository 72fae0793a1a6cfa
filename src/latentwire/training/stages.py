"""What learns in a stage, and what a stage leaves behind.

The optimiser knows all parameters of a run from the first step to the last. Those that stand still in a stage get no
gradient, so it passes over them and keeps their moments for when they go on.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from latentwire.errors import UserError
from latentwire.training.config import Stage
from latentwire.training.optim import matrices
from latentwire.wire import Wire

CODES = "codes"
"""The word for learned codes: books, and the maps there and back."""


class Learning:
    """names: of the links that take part. heads: what objectives train beside the links, by link and objective; here
    they are called ``objectives.OBJECTIVE.LINK``. Parameters that are frozen when a run begins stay so in every stage.
    """

    def __init__(self, wire: Wire, heads: nn.ModuleDict, names: list[str], stages: list[Stage]) -> None:
        every = {name: p for name, p in wire.named_parameters() if p.requires_grad}
        links = tuple(f"links.{name}." for name in names)
        by_rate: dict[float, list[nn.Parameter]] = {}  # as a share of the links'
        for name in names:
            for share, parameters in wire.links[name].by_rate().items():  # ty: ignore[not-callable]
                by_rate.setdefault(share, []).extend(parameters)
        # what objectives train beside a link learns at its rate, and so do the maps to and from learned codes
        by_rate.setdefault(1.0, []).extend(heads.parameters())
        by_rate[1.0].extend(p for name, p in every.items() if name.startswith("codes."))
        self.by_rate = by_rate
        self.encoder = [p for name, p in every.items() if name.startswith("encoder.")]
        self.named = {name: p for name, p in every.items() if name.startswith(("encoder.", "codes.", *links))}
        for name, p in heads.named_parameters():
            link, objective, rest = name.split(".", 2)
            self.named[f"objectives.{objective}.{link}.{rest}"] = p
        self.names = list(names)
        # books learn without gradients, so they have to be told; where a link joins they stay as they are
        self.books = wire.codes if wire.codes is not None and wire.codes.learns else None
        for stage in stages:
            self.chosen(stage)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser knows: links with what stands beside them, then the encoder."""
        return [p for parameters in self.by_rate.values() for p in parameters] + self.encoder

    def groups(self, step: nn.Module, rate: float, encoder_rate: float, muon: bool) -> list[dict]:
        """The optimiser's groups: links, their LoRA and the encoder have rates of their own, and matrices may go to
        Muon. step: what all parameters lie in."""
        flat = matrices(step.modules()) if muon else set()
        groups = []
        links = [(parameters, rate * share) for share, parameters in self.by_rate.items()]
        for parameters, peak in (*links, (self.encoder, encoder_rate)):
            for by_muon in (False, True):
                chosen = [p for p in parameters if (id(p) in flat) == by_muon]
                if chosen:
                    groups.append({"params": chosen, "lr": peak, "peak": peak, "muon": by_muon})
        return groups

    def chosen(self, stage: Stage) -> set[str]:
        """Names of the parameters that learn in it. UserError: one of its words names none, and what there is."""
        if not stage.learn:
            return set(self.named)
        found: set[str] = set()
        for word in stage.learn:
            fits = {name for name in self.named if matches(word, name)}
            if not fits and not (word == CODES and self.books is not None):
                known = set(map(feature, self.named))
                raise UserError(
                    f"a stage's learn names {word!r}, and nothing of that name learns in this run; there are: "
                    f"links, {', '.join(sorted(known))}, and names below these"
                )
            found |= fits
        return found

    def readers(self, stage: Stage) -> list[str]:
        """The receivers a step of it needs: those that pass a gradient to something that learns."""
        if stage.receivers == "none":
            return []
        chosen = self.chosen(stage)
        shared = any(name.startswith(("encoder.", "codes.")) for name in chosen)
        if not stage.learn or CODES in stage.learn or shared:
            return self.names
        words = {name: (f"links.{name}", f"objectives.*.{name}") for name in self.names}
        return [name for name in self.names if any(matches(word, one) for word in words[name] for one in chosen)]

    def begin(self, stage: Stage) -> None:
        """Let this stage's parameters learn and the others stand still."""
        chosen = self.chosen(stage)
        for name, parameter in self.named.items():
            parameter.requires_grad_(name in chosen)
            parameter.grad = None
        if self.books is not None:
            self.books.learns = not stage.learn or CODES in stage.learn


def feature(name: str) -> str:
    """The part of a run that a parameter belongs to: ``encoder``, a link's ``links.llama.adapter`` or
    ``links.llama.lora``, or what an objective trains, ``objectives.gist``."""
    parts = name.split(".")
    return ".".join(parts[: {"links": 3, "objectives": 2}.get(parts[0], 1)])


def matches(word: str, name: str) -> bool:
    """Whether a word of ``learn`` means a parameter: the word is a beginning of its name, by dots, ``*`` is any part.

    >>> matches("links.*.adapter", "links.llama.adapter.expand.1.weight")
    True
    >>> matches("links.lla", "links.llama.adapter.expand.1.weight")
    False
    """
    parts, words = name.split("."), word.split(".")
    return len(words) <= len(parts) and all(fnmatchcase(p, w) for p, w in zip(parts, words, strict=False))
