"""One row of the table: a receiver under a condition, all examples, batched. Every kind shares every line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentwire.conditions import Condition, LatentCondition
from latentwire.evaluation.giving import Batch, Clock, Terms, giving, read_prompts
from latentwire.receivers import Receiver
from latentwire.receivers.decode import FirstToken, generate
from latentwire.receivers.forced import forced
from latentwire.types import Prefix
from latentwire.wire import Wire

PARTS = ("encode", "adapt", "prefill", "decode")


@dataclass
class Measured:
    """Per example, in the order of the examples: the answer, the text it was taken out of, nll of the gold answer
    (summed) and its tokens, whether the first token was right, prompt positions, K/V positions of what is encoded,
    tokens it has as text, bytes. cut: examples that the window cut. seconds: of all together, by part.
    """

    predictions: list[str]
    said: list[str]
    nll: list[float]
    answer_tokens: list[int]
    first: list[float]
    positions: list[int]
    kv: list[int]
    own: list[int]
    bytes: list[int]
    cut: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))


@torch.no_grad()
def measure(
    wire: Wire, receiver: Receiver, condition: Condition, terms: Terms, tick: Callable[[int], None]
) -> Measured:
    """Answer all examples under one condition. tick: told how many were answered."""
    n = len(terms.items.examples)
    m = Measured([""] * n, [""] * n, [0.0] * n, [0] * n, [0.0] * n, [0] * n, [0] * n, [0] * n, [0] * n)
    clock = Clock(receiver.device, m.seconds)
    head = receiver.head().mask_BM.shape[1]
    answers = terms.tokens.answers
    luck_N = torch.rand(n, generator=torch.Generator().manual_seed(terms.seed))
    if isinstance(condition, LatentCondition):
        assert terms.encoded is not None
        m.seconds["encode"] = terms.encoded.seconds
    for batch in read_prompts(receiver, giving(wire, receiver, condition, terms), terms, clock):
        with clock("decode"):
            said = answers_of(receiver, batch, terms, luck_N)
        nll, judged, predicted = judge(receiver, batch.prefix, batch.last, [answers[i][0] for i in batch.examples])
        for row, i in enumerate(batch.examples):
            m.said[i], m.nll[i], m.answer_tokens[i] = said[row], nll[row], judged[row]
            m.predictions[i] = terms.decoding.answer(said[row], receiver.prompt.config)
            m.first[i] = float(any(predicted[row] == answer[0] for answer in answers[i]))
            m.kv[i] = batch.held[row] - head
            m.positions[i] = batch.held[row] + batch.tails[row]
            m.own[i], m.bytes[i] = batch.own[row], batch.bytes[row]
        m.cut += batch.cut
        tick(len(batch.examples))
    return m


def answers_of(receiver: Receiver, batch: Batch, terms: Terms, luck_N: Tensor) -> list[str]:
    """What the receiver says behind each prompt. luck_N: of each example, for what is drawn."""
    d = terms.decoding
    first = FirstToken(d.first_temperature, d.first_top_p, luck_N[batch.examples]) if d.first_temperature else None
    tails = [[token] for token in batch.last]
    return generate(receiver, batch.prefix, tails, d.max_new_tokens, d.banned, first=first).texts


def judge(
    receiver: Receiver, prefix: Prefix, last: list[int], answers: list[list[int]]
) -> tuple[list[float], list[int], list[int]]:
    """For each row the nll of its gold answer (summed, end token included), how many tokens that are, and the most
    likely first token. Arguments are those of :func:`forced`."""
    nll_BT, likeliest_BT, mask_BT = forced(receiver, prefix, last, answers)
    return nll_BT.sum(-1).tolist(), mask_BT.sum(-1).tolist(), likeliest_BT[:, 0].tolist()
