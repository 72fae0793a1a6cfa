"""The rows of an evaluation, arranged so that every context is encoded and read once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from latentwire.data.squad import article
from latentwire.types import Example, Latents
from latentwire.wire import Wire


@dataclass
class Items:
    """Examples grouped by what is encoded. texts: each distinct one. owner: for each example its place in ``texts``."""

    examples: list[Example]
    mode: str
    texts: list[str] = field(default_factory=list)
    questions: list[str] | None = None
    owner: list[int] = field(default_factory=list)
    articles: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, examples: list[Example], mode: str) -> Items:
        """In context mode a context with all its questions is one text; in prompt mode every example is its own."""
        if mode == "prompt":
            owner = list(range(len(examples)))
            texts, questions = [e.context for e in examples], [e.question for e in examples]
            return cls(examples, mode, texts, questions, owner, [_article(e) for e in examples])
        places: dict[str, int] = {}
        owner = [places.setdefault(e.context, len(places)) for e in examples]
        firsts: dict[int, Example] = {}
        for place, e in zip(owner, examples, strict=True):
            firsts.setdefault(place, e)
        return cls(examples, mode, list(places), None, owner, [_article(firsts[i]) for i in range(len(places))])

    def batches(self, size: int, lengths: list[int]) -> list[list[int]]:
        """Example indices in batches of at most ``size``: neighbours share contexts, and batches are of like length."""
        order = sorted(range(len(self.owner)), key=lambda i: (lengths[i], self.owner[i]))
        return [order[i : i + size] for i in range(0, len(order), size)]


def _article(example: Example) -> str:
    # rows of anyone's file have no article in their id: then the context itself is the article
    title = article(example.id)
    return example.context if title == example.id else title


@dataclass(frozen=True)
class Encoded:
    """Latents of all texts at one ratio, in full precision, and the seconds that encoding took."""

    latents: Latents
    seconds: float


@torch.no_grad()
def encode_all(wire: Wire, items: Items, ratio: int, batch_size: int) -> Encoded:
    """Encode every distinct text once, for all receivers, conditions and bits."""
    wait(wire.device)
    began = time.perf_counter()
    # batches of like length, put back in order
    order = sorted(range(len(items.texts)), key=lambda i: len(items.texts[i]))
    back = torch.tensor(order).argsort().to(wire.device)
    asked = None if items.questions is None else [items.questions[i] for i in order]
    with autocast(wire.device):
        latents = wire.encode_latents([items.texts[i] for i in order], ratio, asked, batch_size)
    latents = latents.take(back)
    wait(wire.device)
    return Encoded(latents, time.perf_counter() - began)


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU, as in training; full precision elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def wait(device: torch.device) -> None:
    """Let queued work finish, so that seconds are those of the work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
