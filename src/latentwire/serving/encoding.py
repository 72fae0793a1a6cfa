"""Texts to packets, those of several requests together."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from latentwire.serving.engine import Job
from latentwire.serving.errors import invalid

if TYPE_CHECKING:
    from latentwire.serving.metrics import Metrics
    from latentwire.wire import Wire


@dataclass(eq=False, kw_only=True)
class EncodeJob(Job):
    """One text, to be told as a packet. question: encoded behind it (prompt mode). latents: at most so many.
    codes: so many learned codes a latent, if any."""

    wire: Wire
    text: str
    ratio: int
    question: str | None = None
    latents: int
    codes: int | None = None
    work = "encode"

    @property
    def key(self) -> Hashable:
        return self.work, self.ratio, self.codes, self.question is None

    @property
    def size(self) -> int:
        # in tokens, roughly: there is no need to read the text twice to know how many go together
        return 1 + len(self.text) // 4

    @classmethod
    @torch.no_grad()
    def run(cls, jobs: list[EncodeJob], metrics: Metrics) -> None:
        wire, ratio, codes = jobs[0].wire, jobs[0].ratio, jobs[0].codes
        source = wire.encoder.prepare(wire.source_texts([job.text for job in jobs], questions(jobs)))
        tokens_B = np.bincount(source.owner_P, weights=source.arrays["count"], minlength=len(jobs)).astype(int)
        fit = []
        for job, tokens in zip(jobs, tokens_B.tolist(), strict=True):
            if tokens > job.latents * ratio:
                job.say(too_long(-(-tokens // ratio), job.latents))
            else:
                fit.append(job)
                metrics.tokens.add("encoded", by=tokens)
        if fit:
            packets = wire.encode([job.text for job in fit], ratio, questions(fit), codes=codes)
            for job, packet in zip(fit, packets, strict=True):
                job.say(packet)


def questions(jobs: list[EncodeJob]) -> list[str] | None:
    """The questions of jobs of one key, if they have any."""
    asked = [job.question for job in jobs if job.question is not None]
    return asked or None


def too_long(latents: int, most: int) -> Exception:
    """A text that is refused before it is encoded."""
    return invalid(
        f"a text of about {latents} latents is more than the {most} that this server takes; use a higher ratio, or "
        "send it in parts",
        "input",
        "context_length_exceeded",
    )
