"""What rows of an evaluation share, made once: latents of each ratio, each receiver's tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from latentwire.conditions import Data, VectorCondition
from latentwire.conditions.vectors import Reader
from latentwire.evaluation.given import Tokens, asked_as_vectors
from latentwire.evaluation.giving import Terms
from latentwire.evaluation.items import Encoded, Items, encode_all
from latentwire.evaluation.plan import Job
from latentwire.evaluation.setting import Setting
from latentwire.wire import Wire

ENCODED = 512
"""Texts encoded at a time, at most: encoding is real work already at that number, and holds much more for each text."""


def suits(wire: Wire) -> int:
    """Questions that are best read at a time on the wire's device."""
    # a GPU decodes a small reader's step as fast for two thousand rows as for a few: starting its kernels takes longest
    return 2048 if wire.device.type == "cuda" else 64


@dataclass
class Bench:
    """A wire, its questions and a setting."""

    wire: Wire
    items: Items
    setting: Setting
    batch_size: int
    encoded: dict[int, Encoded] = field(default_factory=dict)
    tokens: dict[str, Tokens] = field(default_factory=dict)

    def terms(self, job: Job) -> tuple[Terms, str | None]:
        """On what terms a row is measured, and why it is not, where its condition says nothing on these questions."""
        name, _, ratio, _ = job.key
        if name not in self.tokens:
            self.tokens[name] = Tokens(self.wire.get_receiver(name), self.items, self.setting.decoding.max_new_tokens)
        encoded = self.latents(ratio)
        packets = [] if encoded is None else [encoded.packet_bytes(place, job.codec) for place in self.items.owner]
        reader = self.reader(job, packets) if isinstance(job.condition, VectorCondition) else None
        data = Data(self.items.articles, packets, [self.items.sizes[place] for place in self.items.owner], reader)
        terms = Terms(
            self.items,
            self.tokens[name],
            encoded,
            self.setting.slots_of(self.wire, name, ratio),
            job.codec,
            self.batch_size,
            self.setting.seed,
            reader,
            self.setting.gain,
            self.setting.decoding,
        )
        return terms, job.condition.not_applicable(data)

    def latents(self, ratio: int | None) -> Encoded | None:
        """Of all texts at one ratio."""
        if ratio is None:
            return None
        if ratio not in self.encoded:
            self.encoded[ratio] = encode_all(self.wire, self.items, ratio, min(self.batch_size, ENCODED))
        return self.encoded[ratio]

    def reader(self, job: Job, packets: list[int]) -> Reader:
        """Who reads the vectors of a row."""
        name, _, ratio, _ = job.key
        tokens, mode, codec = self.tokens[name], self.items.mode, job.codec
        assert isinstance(job.condition, VectorCondition)
        asked = [asked_as_vectors(job.condition, mode, tail, tokens.anchor) for tail in tokens.question]
        counts = [len(tokens.context[place]) + more for place, more in zip(self.items.owner, asked, strict=True)]
        link: Any = self.wire.links[name]
        width = self.wire.settings.encoder.d_z
        return Reader(
            tokens.receiver, link, width, mode, lambda: tokens.words, codec, counts, packets, ratio, self.setting.gain
        )
