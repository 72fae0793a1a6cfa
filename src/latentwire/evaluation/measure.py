"""One row of the table: a receiver under a condition, all examples, batched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentwire.codecs import Codec
from latentwire.conditions import Given, LatentCondition, TextCondition, TextRow
from latentwire.evaluation.items import Encoded, Items, autocast, wait
from latentwire.packets.packet import HEADER_BYTES
from latentwire.receivers import Receiver
from latentwire.receivers.attention import own_causal
from latentwire.receivers.decode import generate
from latentwire.receivers.receiver import pad
from latentwire.types import Prefix
from latentwire.wire import Wire

MAX_NEW_TOKENS = 32


@dataclass
class Measured:
    """Per example, in the order of the examples: answer, nll of the gold answer per token, first token right, prompt
    positions, K/V positions of the context, context tokens of the receiver, bytes. ``seconds``: of all together."""

    predictions: list[str]
    nll: list[float]
    first: list[float]
    positions: list[int]
    kv: list[int]
    own: list[int]
    bytes: list[int]
    cut: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


class Tokens:
    """What a receiver's tokenizer makes of the items, once."""

    def __init__(self, receiver: Receiver, items: Items) -> None:
        prompt = receiver.prompt
        self.anchor = prompt.anchor_ids()
        self.context = prompt.context_ids(items.texts)
        self.question = prompt.question_ids([e.question for e in items.examples])
        flat = prompt.answer_ids([answer for e in items.examples for answer in e.answers])
        self.answers: list[list[list[int]]] = []
        start = 0
        for e in items.examples:
            self.answers.append(flat[start : start + len(e.answers)])
            start += len(e.answers)

    def tail(self, example: int, mode: str, latent: bool) -> list[int]:
        """What follows the context: question and anchor, or behind prompt-mode latents the anchor alone."""
        return self.anchor if latent and mode == "prompt" else self.question[example]


class Clock:
    """Seconds by part."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, dict.fromkeys(("encode", "adapt", "prefill", "decode"), 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        wait(self.device)
        began = time.perf_counter()
        yield
        wait(self.device)
        self.seconds[part] += time.perf_counter() - began


@torch.no_grad()
def measure(
    wire: Wire,
    receiver: Receiver,
    condition: TextCondition | LatentCondition,
    items: Items,
    tokens: Tokens,
    encoded: Encoded | None,
    codec: Codec,
    batch_size: int,
    seed: int,
    tick: Callable[[int], None],
) -> Measured:
    """Answer all examples under one condition. ``encoded``: of the ratio, where the condition needs it."""
    n = len(items.examples)
    m = Measured([""] * n, [0.0] * n, [0.0] * n, [0] * n, [0] * n, [0] * n, [0] * n)
    clock = Clock(receiver.device)
    latent = isinstance(condition, LatentCondition)
    slots = wire.links[receiver.name].config.adapter.slots  # ty: ignore[unresolved-attribute]
    counts = None if encoded is None else encoded.latents.count_B.tolist()
    given: list[Given] = []
    if isinstance(condition, LatentCondition):
        assert encoded is not None and counts is not None
        latents = condition.change(encoded.latents, items.articles, seed)
        clock.seconds["encode"] = encoded.seconds
        lengths = [counts[items.owner[i]] for i in range(n)]
    else:
        width = 0 if encoded is None else encoded.latents.z_BMD.shape[-1]
        given, m.cut = give(condition, receiver, items, tokens, counts, slots, codec, width)
        lengths = [len(g.context or []) for g in given]
    head = receiver.head().mask_BM.shape[1]
    for batch in items.batches(batch_size, lengths):
        if latent:
            places = sorted({items.owner[i] for i in batch})
            rows = torch.tensor([places.index(items.owner[i]) for i in batch], device=receiver.device)
            chosen = latents.take(torch.tensor(places, device=latents.z_BMD.device))
            longest = int(chosen.count_B.max())
            chosen = type(chosen)(chosen.z_BMD[:, :longest], chosen.mask_BM[:, :longest], chosen.source_B, chosen.ratio_B)
            with clock("adapt"), autocast(wire.device):
                prefix = wire.prefix(receiver.name, chosen.with_z(codec.fake_quantise(chosen.z_BMD)), items.mode)
            tails = [tokens.tail(i, items.mode, True) for i in batch]
        else:
            with clock("prefill"):
                prefix, rows = read_distinct(receiver, [given[i].context or [] for i in batch])
            tails = [given[i].tail for i in batch]
        prefix = prefix.take(rows)
        with clock("decode"):
            said = generate(receiver, prefix, tails, MAX_NEW_TOKENS).texts
        nll, predicted = judge(receiver, prefix, tails, [tokens.answers[i][0] for i in batch])
        held = prefix.count_B.tolist()
        for place, i in enumerate(batch):
            m.predictions[i], m.nll[i] = said[place], nll[place]
            m.first[i] = float(any(predicted[place] == answer[0] for answer in tokens.answers[i]))
            m.kv[i] = held[place] - head
            m.positions[i] = held[place] + len(tails[place])
            m.own[i] = len(tokens.context[items.owner[i]])
            if latent and counts is not None:
                m.bytes[i] = HEADER_BYTES + codec.nbytes(counts[items.owner[i]], latents.z_BMD.shape[-1])
            else:
                m.bytes[i] = len(receiver.tokenizer.decode(given[i].context or []).strip().encode())
        tick(len(batch))
    m.seconds = clock.seconds
    return m


def give(
    condition: TextCondition,
    receiver: Receiver,
    items: Items,
    tokens: Tokens,
    counts: list[int] | None,
    slots: int,
    codec: Codec,
    width: int,
) -> tuple[list[Given], int]:
    """What each example is given as text, and how many of them had to be cut to the receiver's window."""
    found: list[Given] = []
    cut = 0
    window = receiver.geometry.window - receiver.head().mask_BM.shape[1] - MAX_NEW_TOKENS
    for i, place in enumerate(items.owner):
        count = 0 if counts is None else counts[place]
        size = HEADER_BYTES + codec.nbytes(count, width) if count else 0
        row = TextRow(items.texts[place], tokens.context[place], tokens.question[i], tokens.anchor, count * slots, size)
        got = condition.give(row)
        context = got.context if got.context is not None else receiver.prompt.context_ids([got.text or ""])[0]
        room = max(window - len(got.tail), 0)
        if len(context) > room:
            context, cut = context[:room], cut + 1
        found.append(Given(context, got.tail))
    return found, cut


def read_distinct(receiver: Receiver, contexts: list[list[int]]) -> tuple[Prefix, Tensor]:
    """Read each distinct context once; returns the prefixes and, for each row, which of them is its own."""
    places: dict[tuple[int, ...], int] = {}
    rows = [places.setdefault(tuple(context), len(places)) for context in contexts]
    mask_BT, ids_BT = pad([list(ids) for ids in places], receiver.prompt.pad_id, receiver.device)
    prefix = receiver.read(ids_BT, mask_BT, receiver.head_for(len(places)))
    return prefix, torch.tensor(rows, device=receiver.device)


def judge(
    receiver: Receiver, prefix: Prefix, tails: list[list[int]], answers: list[list[int]]
) -> tuple[list[float], list[int]]:
    """Teacher forced: nll of each gold answer per token (end token included), and the most likely first token."""
    mask_BT, ids_BT = pad([t + a for t, a in zip(tails, answers, strict=True)], receiver.prompt.pad_id, receiver.device)
    T = ids_BT.shape[1]
    place_T = torch.arange(T, device=receiver.device)
    positions_BT = prefix.next_B[:, None] + place_T
    h_BTE = receiver.states(ids_BT, positions_BT=positions_BT, own_BTT=own_causal(mask_BT), prefix=prefix)
    start_B = torch.tensor([len(t) for t in tails], device=receiver.device)
    end_B = start_B + torch.tensor([len(a) for a in answers], device=receiver.device)
    # the state before a token predicts it; only answers' states reach the head
    target_BT = (place_T[1:] >= start_B[:, None]) & (place_T[1:] < end_B[:, None])
    logits_NV = receiver.logits(h_BTE[:, :-1][target_BT])
    labels_N = ids_BT[:, 1:][target_BT]
    nll_N = torch.nn.functional.cross_entropy(logits_NV, labels_N, reduction="none")
    row_N = target_BT.nonzero()[:, 0]
    sums = nll_N.new_zeros(len(tails)).index_add_(0, row_N, nll_N)
    first_N = torch.ones_like(row_N, dtype=torch.bool)
    first_N[1:] = row_N[1:] != row_N[:-1]
    return (sums / (end_B - start_B)).tolist(), logits_NV[first_N].argmax(-1).tolist()
