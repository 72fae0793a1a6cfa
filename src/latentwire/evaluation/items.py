"""The rows of an evaluation, arranged so that every context is encoded and read once."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

import torch

from latentwire.codecs import Codec
from latentwire.data.squad import article
from latentwire.packets.packet import HEADER_BYTES
from latentwire.types import Example, Latents
from latentwire.wire import Wire

NUMBERED = re.compile(r"-\d{1,5}-\d{1,5}$")
"""How an id ends that names an article: with the numbers of paragraph and question (an id like a UUID names none)."""


@dataclass
class Items:
    """Examples grouped by what is encoded. texts: each distinct one. owner: for each example its place in ``texts``.
    articles: of each text. sizes: UTF-8 bytes of what is encoded for each text."""

    examples: list[Example]
    mode: str
    texts: list[str] = field(default_factory=list)
    questions: list[str] | None = None
    owner: list[int] = field(default_factory=list)
    articles: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, wire: Wire, examples: list[Example], mode: str) -> Items:
        """In context mode a context with all its questions is one text; in prompt mode every example is its own."""
        places: dict[str, int] = {}
        if mode == "prompt":
            owner, firsts = list(range(len(examples))), examples
            questions = [e.question for e in examples]
        else:
            owner, questions = [places.setdefault(e.context, len(places)) for e in examples], None
            firsts = [examples[i] for i in _first_of_each(owner)]
        texts = [e.context for e in firsts]
        sizes = [len(text.encode()) for text in wire.source_texts(texts, questions)]
        return cls(examples, mode, texts, questions, owner, [_article(e) for e in firsts], sizes)

    def batches(self, size: int, lengths: list[int], most: int) -> list[list[int]]:
        """Example indices in batches: neighbours share contexts, and batches are of like length.

        size: examples in a batch at most. lengths: positions of each example's context. most: positions of a batch.
        """
        order = sorted(range(len(self.owner)), key=lambda i: (lengths[i], self.owner[i]))
        found: list[list[int]] = []
        for i in order:
            # the last one that was added is the longest
            if not found or len(found[-1]) >= size or (len(found[-1]) + 1) * lengths[i] > most:
                found.append([])
            found[-1].append(i)
        return found


def _first_of_each(owner: list[int]) -> list[int]:
    first: dict[int, int] = {}
    for i, place in enumerate(owner):
        first.setdefault(place, i)
    return list(first.values())


def _article(example: Example) -> str:
    # rows of anyone's file name no article in their id: then the context itself is the article
    return article(example.id) if NUMBERED.search(example.id) else example.context


@dataclass(frozen=True)
class Encoded:
    """Latents of all texts at one ratio, in full precision, and the seconds that encoding took."""

    latents: Latents
    seconds: float
    counts: list[int]

    def packet_bytes(self, place: int, codec: Codec) -> int:
        """Exact size of a text's packet, header included."""
        return HEADER_BYTES + codec.nbytes(self.counts[place], self.latents.z_BMD.shape[-1])


@torch.no_grad()
def encode_all(wire: Wire, items: Items, ratio: int, batch_size: int) -> Encoded:
    """Encode every distinct text once, for all receivers, conditions and bits."""
    wait(wire.device)
    began = time.perf_counter()
    # batches of like length, put back in order
    order = sorted(range(len(items.texts)), key=lambda i: items.sizes[i])
    back = torch.tensor(order).argsort().to(wire.device)
    asked = None if items.questions is None else [items.questions[i] for i in order]
    with autocast(wire.device):
        latents = wire.encode_latents([items.texts[i] for i in order], ratio, asked, batch_size)
    latents = latents.take(back)
    wait(wire.device)
    return Encoded(latents, time.perf_counter() - began, latents.count_B.tolist())


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU, as in training; full precision elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def wait(device: torch.device) -> None:
    """Let queued work finish, so that seconds are those of the work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
