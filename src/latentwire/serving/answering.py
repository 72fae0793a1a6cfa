"""Answers of one receiver, written together: each row with its own length, temperature, seed and stops.

A row's tokens depend on no other row: greedy ones are the likeliest of its own logits, drawn ones come from a generator
of its own, seeded as a batch of one is seeded offline. So an answer is the one that ``Reading.generate`` gives alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from latentwire.receivers.decode import sampled, steps
from latentwire.serving.contexts import read, sift
from latentwire.serving.engine import Job
from latentwire.serving.errors import invalid
from latentwire.serving.growing import Growing
from latentwire.serving.prefixes import Prefixes

if TYPE_CHECKING:
    from torch import Tensor

    from latentwire.packets import Packet
    from latentwire.receivers import Receiver
    from latentwire.serving.metrics import Metrics
    from latentwire.wire import Wire


@dataclass(frozen=True)
class Answer:
    """How a row ended.

    text: all of it. finish: ``stop`` or ``length``. tokens: written. prompt: K/V positions of the whole prompt.
    context: those that stand for the context. waited, took: seconds. rows: of its batch.
    """

    text: str
    finish: str
    tokens: int
    prompt: int
    context: int
    waited: float
    took: float
    rows: int


@dataclass(eq=False, kw_only=True)
class AnswerJob(Job):
    """One prompt.

    packet: the context as latents; None: as text, and ``context`` are its tokens (none: nothing was given). tail:
    tokens of the question and the anchor. stream: pieces of text are told on the way. kept: contexts read before.
    among: the packets that ``packet`` was joined of, of which the ``best`` for the question are to be read.
    """

    wire: Wire
    receiver: str
    packet: Packet | None = None
    context: list[int] = field(default_factory=list)
    tail: list[int]
    most: int
    temperature: float = 0.0
    seed: int = 0
    stops: list[str] = field(default_factory=list)
    slots: int | None = None
    stream: bool = False
    kept: Prefixes = field(default_factory=Prefixes)
    among: tuple[Packet, ...] = ()
    best: int = 0
    work = "answer"

    @property
    def key(self) -> Hashable:
        return self.work, self.receiver, self.packet.mode if self.packet else "text", self.slots

    @property
    def size(self) -> int:
        return len(self.context) if self.packet is None else len(self.packet.z_MD) * (self.slots or 1)

    def given(self) -> Hashable:
        """The same for jobs of one key that were given the same context."""
        if self.packet is None:
            return tuple(self.context)
        packet = self.packet
        z = hashlib.blake2b(packet.z_MD.contiguous().numpy().tobytes(), digest_size=16).digest()
        return z, packet.z_MD.shape, packet.source_tokens, packet.ratio, packet.coded

    @classmethod
    @torch.no_grad()
    def run(cls, jobs: list[AnswerJob], metrics: Metrics) -> None:
        begun = time.perf_counter()
        jobs = sorted(jobs, key=lambda job: len(job.tail))  # questions of like lengths are read together
        receiver = jobs[0].wire.get_receiver(jobs[0].receiver)
        sift(jobs, receiver)
        prefix = read(jobs, receiver)
        held_B = prefix.count_B.tolist()
        batch = _Batch(jobs, receiver)
        ended: set[int] = set()
        going = set(range(len(jobs)))
        for said in steps(
            receiver, prefix, [job.tail for job in jobs], max(job.most for job in jobs), batch.choose, ended
        ):
            for row in sorted(going):
                job, growing = jobs[row], batch.growing[row]
                # a row that says nothing any more has said its end token
                finish = growing.take(said[row]) if row in said else "stop"
                if job.gone:
                    metrics.gone.add()
                elif row in batch.broken:
                    job.say(invalid("this packet gives no probabilities to draw from; encode its text again", "latent"))
                elif finish is None:
                    if job.stream and (piece := growing.fresh()):
                        job.say(piece, last=False)
                    continue
                else:
                    if job.stream and (piece := growing.fresh(ended=True)):
                        job.say(piece, last=False)
                    # counted before it is said: whoever has the answer finds it counted
                    metrics.tokens.add("prompt", by=held_B[row] + len(job.tail))
                    metrics.tokens.add("written", by=len(growing.ids))
                    now = time.perf_counter()
                    head = receiver.head().mask_BM.shape[1]
                    job.say(
                        Answer(
                            growing.text(), finish, len(growing.ids), held_B[row] + len(job.tail), held_B[row] - head,
                            begun - job.arrived, now - begun, len(jobs),
                        )
                    )  # fmt: skip
                going.discard(row)
                ended.add(row)


class _Batch:
    """Rows while they are written. broken: those whose logits are no numbers."""

    def __init__(self, jobs: list[AnswerJob], receiver: Receiver) -> None:
        def decode(ids: list[int]) -> Any:
            return receiver.tokenizer.decode(ids, skip_special_tokens=True)

        self.growing = [Growing(decode, job.most, job.stops) for job in jobs]
        self.broken: set[int] = set()
        self.drawn = {
            row: (job.temperature, torch.Generator(receiver.device).manual_seed(job.seed))
            for row, job in enumerate(jobs)
            if job.temperature > 0
        }

    def choose(self, step: int, rows: list[int], logits_BV: Tensor) -> Tensor:
        """The likeliest token of each row, or one drawn by its own luck."""
        chosen_B = logits_BV.argmax(-1)
        for place, row in enumerate(rows):
            if row in self.drawn and row not in self.broken:
                if logits_BV[place].isfinite().all():
                    chosen_B[place] = sampled(logits_BV[place : place + 1], *self.drawn[row])[0]
                else:
                    self.broken.add(row)
        return chosen_B
