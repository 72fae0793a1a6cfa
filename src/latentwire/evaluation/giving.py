"""Batches of prompts, read up to the token from which the answer begins: all that is done before anything is asked.

Each kind of condition says how the contexts of a batch become a prefix; from there on every line is shared.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from latentwire.codecs import Codec
from latentwire.conditions import Condition, LatentCondition, TextCondition, VectorCondition
from latentwire.conditions.vectors import Maker, Reader
from latentwire.evaluation.decoding import PLAIN, Decoding
from latentwire.evaluation.given import Fitted, Tokens, give, give_vectors
from latentwire.evaluation.items import Encoded, Items, autocast, wait
from latentwire.receivers import Receiver
from latentwire.receivers.receiver import pad
from latentwire.types import Prefix
from latentwire.wire import Wire


class Clock:
    """Seconds by part."""

    def __init__(self, device: torch.device, seconds: dict[str, float]) -> None:
        self.device, self.seconds = device, seconds

    @contextmanager
    def __call__(self, part: str) -> Generator[None, None, None]:
        wait(self.device)
        began = time.perf_counter()
        yield
        wait(self.device)
        self.seconds[part] += time.perf_counter() - began


@dataclass(frozen=True)
class Terms:
    """On what terms a row is measured. encoded: of the ratio, where the condition has one. slots: K/V positions for
    each latent. reader: of a vector condition. gain: what is injected is multiplied by it. decoding: how
    answers are written."""

    items: Items
    tokens: Tokens
    encoded: Encoded | None
    slots: int
    codec: Codec
    batch_size: int
    seed: int
    reader: Reader | None = None
    gain: float = 1.0
    decoding: Decoding = PLAIN


@dataclass(frozen=True)
class Batch:
    """Examples whose prompts were read but for their last token.

    examples: their places. prefix: a row for each. last: the token of each that is not in the prefix. tails: tokens
    behind what was given of the context, of which ``last`` is one. held: K/V positions of head and context. own:
    tokens of the receiver that these stand for. bytes: of text or packet. cut: how many the window cut.
    """

    examples: list[int]
    prefix: Prefix
    last: list[int]
    tails: list[int]
    held: list[int]
    own: list[int]
    bytes: list[int]
    cut: int


class Giving:
    """How one condition gives contexts. lengths: K/V positions of each example's context."""

    lengths: list[int]

    def read(self, batch: list[int], clock: Clock) -> tuple[Prefix, list[int], list[list[int]], int]:
        """Prefixes of distinct contexts; for each example which of them is its own, and its tail; how many were cut."""
        raise NotImplementedError

    def own(self, example: int) -> int:
        """Tokens of the receiver that stand behind what is given in place of text."""
        raise NotImplementedError

    def bytes(self, example: int) -> int:
        """Bytes of what is given."""
        raise NotImplementedError


class AsText(Giving):
    """Tokens that the receiver reads."""

    def __init__(self, receiver: Receiver, terms: Terms, fitted: list[Fitted]) -> None:
        self.receiver, self.terms, self.fitted = receiver, terms, fitted
        self.lengths = [len(row.context) for row in fitted]

    def prefix(self, contexts: list[list[int]]) -> Prefix:
        """Head and contexts, read."""
        mask_BT, ids_BT = pad(contexts, self.receiver.prompt.pad_id, self.receiver.device)
        return self.receiver.read(ids_BT, mask_BT, self.receiver.head_for(len(contexts)))

    def read(self, batch: list[int], clock: Clock) -> tuple[Prefix, list[int], list[list[int]], int]:
        places: dict[tuple[int, ...], int] = {}
        rows = [places.setdefault(tuple(self.fitted[i].context), len(places)) for i in batch]
        with clock("prefill"):
            prefix = self.prefix([list(ids) for ids in places])
        return prefix, rows, [self.fitted[i].tail for i in batch], sum(self.fitted[i].cut for i in batch)

    def own(self, example: int) -> int:
        return len(self.terms.tokens.context[self.terms.items.owner[example]])

    def bytes(self, example: int) -> int:
        return self.fitted[example].bytes


class AsVectors(AsText):
    """Vectors in place of tokens."""

    def __init__(self, receiver: Receiver, terms: Terms, fitted: list[Fitted], maker: Maker) -> None:
        super().__init__(receiver, terms, fitted)
        self.maker = maker
        self.lengths = [maker.positions(len(row.context)) for row in fitted]

    def prefix(self, contexts: list[list[int]]) -> Prefix:
        return self.maker.prefix(contexts)

    def own(self, example: int) -> int:
        return len(self.fitted[example].context)

    def bytes(self, example: int) -> int:
        size = self.maker.nbytes(len(self.fitted[example].context))
        return self.fitted[example].bytes if size is None else size


class AsLatents(Giving):
    """Latents that went through the condition and the packet's rounding."""

    def __init__(
        self, wire: Wire, receiver: Receiver, terms: Terms, condition: LatentCondition, taken: list[int]
    ) -> None:
        self.wire, self.receiver, self.terms, self.condition = wire, receiver, terms, condition
        self.sources = condition.sources(terms.items.articles, terms.seed)
        self.lengths = [taken[self.sources[place]] for place in terms.items.owner]

    def read(self, batch: list[int], clock: Clock) -> tuple[Prefix, list[int], list[list[int]], int]:
        items, tokens = self.terms.items, self.terms.tokens
        places = list(dict.fromkeys(items.owner[i] for i in batch))
        rows = [places.index(items.owner[i]) for i in batch]
        with clock("adapt"), autocast(self.wire.device):
            prefix = self.prefix(places)
        whole = [tokens.anchor if items.mode == "prompt" else tokens.question[i] for i in batch]
        ends = prefix.next_B.tolist()
        left = [self.receiver.geometry.window - tokens.most - ends[row] for row in rows]
        tails = [tokens.fit(tail, room) for tail, room in zip(whole, left, strict=True)]
        return prefix, rows, tails, sum(len(a) < len(b) for a, b in zip(tails, whole, strict=True))

    def prefix(self, places: list[int]) -> Prefix:
        """Prefixes of the texts at ``places``."""
        t = self.terms
        assert t.encoded is not None
        device = t.encoded.latents.z_BMD.device
        latents = t.encoded.latents.take(torch.tensor([self.sources[place] for place in places], device=device))
        M = int(latents.count_B.max())
        latents = type(latents)(latents.z_BMD[:, :M], latents.mask_BM[:, :M], latents.source_B, latents.ratio_B)
        latents = self.condition.change(latents, places, t.seed)
        z_BMD = t.codec.fake_quantise(latents.z_BMD)
        link: Any = self.wire.links[self.receiver.name]
        with link.injection.at_strength(t.gain):
            return self.wire.prefix(self.receiver.name, latents.with_z(z_BMD), t.items.mode, t.slots)

    def own(self, example: int) -> int:
        tokens = self.terms.tokens
        asked = len(tokens.question[example]) - len(tokens.anchor) if self.terms.items.mode == "prompt" else 0
        return len(tokens.context[self.terms.items.owner[example]]) + asked

    def bytes(self, example: int) -> int:
        assert self.terms.encoded is not None
        return self.terms.encoded.packet_bytes(self.sources[self.terms.items.owner[example]], self.terms.codec)


def giving(wire: Wire, receiver: Receiver, condition: Condition, terms: Terms) -> Giving:
    """How a condition of any kind gives what it gives."""
    taken: list[int] = []
    if terms.encoded is not None:
        link: Any = wire.links[receiver.name]
        mine_N = wire.encoder.part(terms.encoded.latents, receiver.name).count_B.cpu()
        taken = link.injection.kv_positions(mine_N * terms.slots).tolist()
    if isinstance(condition, LatentCondition):
        return AsLatents(wire, receiver, terms, condition, taken)
    if isinstance(condition, VectorCondition):
        assert terms.reader is not None
        fitted = give_vectors(condition, terms.items, terms.tokens, terms.codec)
        return AsVectors(receiver, terms, fitted, condition.maker(terms.reader))
    assert isinstance(condition, TextCondition)
    fitted = give(condition, terms.items, terms.tokens, terms.encoded, taken, terms.codec)
    return AsText(receiver, terms, fitted)


def read_prompts(receiver: Receiver, given: Giving, terms: Terms, clock: Clock) -> Iterator[Batch]:
    """All examples in batches, each context of a batch read once for its questions."""
    head = receiver.head().mask_BM.shape[1]
    # what each row holds besides its context
    beside = head + terms.tokens.most + max(map(len, terms.tokens.question))
    lengths = [length + beside for length in given.lengths]
    for batch in terms.items.batches(terms.batch_size, lengths, most_positions(receiver)):
        prefix, rows, tails, cut = given.read(batch, clock)
        with clock("prefill"):
            prefix = prefix.take(torch.tensor(rows, device=receiver.device))
            held = prefix.count_B.tolist()
            prefix = read_tails(receiver, prefix, tails)
        yield Batch(
            batch,
            prefix,
            [tail[-1] for tail in tails],
            [len(tail) for tail in tails],
            held,
            [given.own(i) for i in batch],
            [given.bytes(i) for i in batch],
            cut,
        )


def most_positions(receiver: Receiver) -> int:
    """Positions whose keys and values a batch may hold: half a gigabyte of them on a CPU, a sixth of what is free on a
    GPU (rows are copied for their questions and again for decoding, which leaves half).
    """
    g = receiver.geometry
    each = 2 * g.layers * g.kv_heads * g.head_dim * receiver.dtype.itemsize
    on_gpu = receiver.device.type == "cuda"
    return (torch.cuda.mem_get_info(receiver.device)[0] // 6 if on_gpu else 1 << 29) // each


def read_tails(receiver: Receiver, prefix: Prefix, tails: list[list[int]]) -> Prefix:
    """Read question and anchor, all but the last token: from there decoding and judging go their own ways."""
    if not any(len(tail) > 1 for tail in tails):
        return prefix
    mask_BT, ids_BT = pad([tail[:-1] for tail in tails], receiver.prompt.pad_id, receiver.device)
    return receiver.read(ids_BT, mask_BT, prefix)
