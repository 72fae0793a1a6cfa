"""One row of the table: a receiver under a condition, all examples, batched. Text and latents share every line here."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentwire.codecs import Codec
from latentwire.conditions import LatentCondition, TextCondition
from latentwire.evaluation.given import MAX_NEW_TOKENS, Fitted, Tokens, give
from latentwire.evaluation.items import Encoded, Items, autocast, wait
from latentwire.receivers import Receiver
from latentwire.receivers.attention import own_causal
from latentwire.receivers.decode import generate
from latentwire.receivers.receiver import pad
from latentwire.types import Prefix
from latentwire.wire import Wire

PARTS = ("encode", "adapt", "prefill", "decode")


@dataclass
class Measured:
    """Per example, in the order of the examples: the answer, nll of the gold answer (summed) and its tokens, whether
    the first token was right, prompt positions, K/V positions of what is encoded, tokens it has as text, bytes.
    cut: examples that the window cut. seconds: of all together, by part."""

    predictions: list[str]
    nll: list[float]
    answer_tokens: list[int]
    first: list[float]
    positions: list[int]
    kv: list[int]
    own: list[int]
    bytes: list[int]
    cut: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))


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


@torch.no_grad()
def measure(
    wire: Wire,
    receiver: Receiver,
    condition: TextCondition | LatentCondition,
    items: Items,
    tokens: Tokens,
    encoded: Encoded | None,
    slots: int,
    codec: Codec,
    batch_size: int,
    seed: int,
    tick: Callable[[int], None],
) -> Measured:
    """Answer all examples under one condition. ``encoded``: of the ratio, where the condition has one; ``slots``: K/V
    positions for each latent."""
    n = len(items.examples)
    m = Measured([""] * n, [0.0] * n, [0] * n, [0.0] * n, [0] * n, [0] * n, [0] * n, [0] * n)
    clock = Clock(receiver.device, m.seconds)
    head = receiver.head().mask_BM.shape[1]
    link: Any = wire.links[receiver.name]
    taken: list[int] = []
    if encoded is not None:
        mine_N = wire.encoder.part(encoded.latents, receiver.name).count_B.cpu()
        taken = link.injection.kv_positions(mine_N * slots).tolist()
    if isinstance(condition, LatentCondition):
        assert encoded is not None
        m.seconds["encode"] = encoded.seconds
        given: list[Fitted] = []
        sources = condition.sources(items.articles, seed)
        lengths = [taken[sources[place]] for place in items.owner]
    else:
        given = give(condition, items, tokens, encoded, taken, codec)
        lengths = [len(row.context) for row in given]
    # what each row holds besides its context
    beside = head + MAX_NEW_TOKENS + max(map(len, tokens.question))
    for batch in items.batches(batch_size, [length + beside for length in lengths], most_positions(receiver)):
        if isinstance(condition, LatentCondition):
            assert encoded is not None
            places = list(dict.fromkeys(items.owner[i] for i in batch))
            rows = [places.index(items.owner[i]) for i in batch]
            with clock("adapt"), autocast(wire.device):
                prefix = read_latents(
                    wire, receiver, condition, items.mode, encoded, slots, sources, places, codec, seed
                )
            whole = [tokens.anchor if items.mode == "prompt" else tokens.question[i] for i in batch]
            left = [receiver.geometry.window - MAX_NEW_TOKENS - prefix.next_B.tolist()[row] for row in rows]
            tails = [tokens.fit(tail, room) for tail, room in zip(whole, left, strict=True)]
            m.cut += sum(len(a) < len(b) for a, b in zip(tails, whole, strict=True))
            sizes = [encoded.packet_bytes(sources[items.owner[i]], codec) for i in batch]
        else:
            with clock("prefill"):
                prefix, rows = read_contexts(receiver, [given[i].context for i in batch])
            tails = [given[i].tail for i in batch]
            m.cut += sum(given[i].cut for i in batch)
            sizes = [given[i].bytes for i in batch]
        with clock("prefill"):
            prefix = prefix.take(torch.tensor(rows, device=receiver.device))
            held = prefix.count_B.tolist()
            prefix = read_tails(receiver, prefix, tails)
        last = [tail[-1] for tail in tails]
        with clock("decode"):
            said = generate(receiver, prefix, [[token] for token in last], MAX_NEW_TOKENS).texts
        gold = [tokens.answers[i][0] for i in batch]
        nll, judged, predicted = judge(receiver, prefix, last, gold)
        for row, i in enumerate(batch):
            m.predictions[i], m.nll[i], m.answer_tokens[i] = said[row], nll[row], judged[row]
            m.first[i] = float(any(predicted[row] == answer[0] for answer in tokens.answers[i]))
            m.kv[i] = held[row] - head
            m.positions[i] = held[row] + len(tails[row])
            m.own[i] = len(tokens.context[items.owner[i]])
            if isinstance(condition, LatentCondition) and items.mode == "prompt":
                m.own[i] += len(tokens.question[i]) - len(tokens.anchor)
            m.bytes[i] = sizes[row]
        tick(len(batch))
    return m


def most_positions(receiver: Receiver) -> int:
    """Positions whose keys and values a batch may hold: half a gigabyte of them on a CPU, a sixth of what is free on a
    GPU (rows are copied for their questions and again for decoding, which leaves half).
    """
    g = receiver.geometry
    each = 2 * g.layers * g.kv_heads * g.head_dim * receiver.dtype.itemsize
    on_gpu = receiver.device.type == "cuda"
    return (torch.cuda.mem_get_info(receiver.device)[0] // 6 if on_gpu else 1 << 29) // each


def read_latents(
    wire: Wire,
    receiver: Receiver,
    condition: LatentCondition,
    mode: str,
    encoded: Encoded,
    slots: int,
    sources: list[int],
    places: list[int],
    codec: Codec,
    seed: int,
) -> Prefix:
    """Prefixes of the texts at ``places``, from latents that went through the condition and the packet's rounding."""
    device = encoded.latents.z_BMD.device
    latents = encoded.latents.take(torch.tensor([sources[place] for place in places], device=device))
    M = int(latents.count_B.max())
    latents = type(latents)(latents.z_BMD[:, :M], latents.mask_BM[:, :M], latents.source_B, latents.ratio_B)
    latents = condition.change(latents, places, seed)
    return wire.prefix(receiver.name, latents.with_z(codec.fake_quantise(latents.z_BMD)), mode, slots)


def read_contexts(receiver: Receiver, contexts: list[list[int]]) -> tuple[Prefix, list[int]]:
    """Read each distinct context once; returns the prefixes and, for each row, which of them is its own."""
    places: dict[tuple[int, ...], int] = {}
    rows = [places.setdefault(tuple(context), len(places)) for context in contexts]
    mask_BT, ids_BT = pad([list(ids) for ids in places], receiver.prompt.pad_id, receiver.device)
    return receiver.read(ids_BT, mask_BT, receiver.head_for(len(places))), rows


def read_tails(receiver: Receiver, prefix: Prefix, tails: list[list[int]]) -> Prefix:
    """Read question and anchor, all but the last token: from there decoding and judging go their own ways."""
    if not any(len(tail) > 1 for tail in tails):
        return prefix
    mask_BT, ids_BT = pad([tail[:-1] for tail in tails], receiver.prompt.pad_id, receiver.device)
    return receiver.read(ids_BT, mask_BT, prefix)


def judge(
    receiver: Receiver, prefix: Prefix, last: list[int], answers: list[list[int]]
) -> tuple[list[float], list[int], list[int]]:
    """Teacher forced: for each row the nll of its gold answer (summed, end token included), how many tokens that are,
    and the most likely first token. ``last``: the prompt's last token of each row, not yet in ``prefix``.

    A gold answer that reaches beyond the window is judged up to there.
    """
    room = [receiver.geometry.window - place for place in prefix.next_B.tolist()]
    answers = [answer[: max(most, 1)] for answer, most in zip(answers, room, strict=True)]
    inputs = [[token, *answer[:-1]] for token, answer in zip(last, answers, strict=True)]
    mask_BT, ids_BT = pad(inputs, receiver.prompt.pad_id, receiver.device)
    _, labels_BT = pad(answers, receiver.prompt.pad_id, receiver.device)
    positions_BT = prefix.next_B[:, None] + torch.arange(ids_BT.shape[1], device=receiver.device)
    if not receiver.geometry.rope:
        # learned positions end with the window, and pads stand beyond a row's own end
        positions_BT = positions_BT.clamp_max(receiver.geometry.window - 1)
    h_BTE = receiver.states(ids_BT, positions_BT=positions_BT, own_BTT=own_causal(mask_BT), prefix=prefix)
    logits_NV = receiver.logits(h_BTE[mask_BT])
    nll_BT = h_BTE.new_zeros(mask_BT.shape, dtype=torch.float32)
    nll_BT[mask_BT] = torch.nn.functional.cross_entropy(logits_NV, labels_BT[mask_BT], reduction="none")
    starts_B: Tensor = mask_BT.sum(-1).cumsum(0) - mask_BT.sum(-1)
    return nll_BT.sum(-1).tolist(), mask_BT.sum(-1).tolist(), logits_NV[starts_B].argmax(-1).tolist()
