"""A packet as the vectors that a receiver's first layer meets: what vLLM takes as ``prompt_embeds``.

vLLM takes base64 of what ``torch.save`` writes of one tensor [tokens, width]. Only a link whose injection is nothing
but vectors can be sent so; keys and values made by a link have no such payload. vLLM counts the vectors' positions one
by one, a link has learnt to stand at the places of the text: answers of the two need not be equal.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentwire.errors import UserError
from latentwire.injections import InjectionConfig
from latentwire.serving.engine import Job

if TYPE_CHECKING:
    from latentwire.packets import Packet
    from latentwire.serving.metrics import Metrics
    from latentwire.wire import Wire

DTYPES = ("float32", "bfloat16", "float16")


@torch.no_grad()
def prompt_embeds(
    wire: Wire, name: str, packet: Packet, question: str | None = None, slots: int | None = None,
    dtype: str | None = None,
) -> Tensor:  # fmt: skip
    """Vectors [tokens, E] of a packet for receiver ``name``, on the CPU.

    question: the whole prompt around them as well (head, question, anchor), which vLLM's ``/v1/completions`` takes;
    without it the latents alone, for a part among text in its chat. dtype: the receiver's own if None. UserError: the
    link reads something else than vectors.
    """
    receiver, link = wire.get_receiver(name), wire.links[name]
    check(wire, name)
    if question is not None and packet.mode == "prompt" and question:
        raise UserError("the packet holds its question already; leave the question empty")
    seen: list[tuple[Tensor, Tensor]] = []
    wire.prefix(name, wire.latents([packet]), packet.mode, slots, seen)
    slots_BSE, mask_BS = seen[0]
    vectors_ME = link.injection.vectors(slots_BSE)[0][mask_BS[0]]  # ty: ignore[not-callable]
    if question is not None:
        layout = receiver.prompt
        tail = layout.anchor_ids() if packet.mode == "prompt" else layout.question_ids([question])[0]
        head_E, tail_E = (
            receiver.embed(torch.tensor([ids], device=receiver.device))[0] for ids in (layout.head_ids(), tail)
        )
        vectors_ME = torch.cat([head_E, vectors_ME.to(head_E.dtype), tail_E])
    wanted = getattr(torch, dtype) if dtype else receiver.dtype
    # a tensor of its own: saving a view would save all that it is a view of
    return vectors_ME.to("cpu", wanted).contiguous().clone()


def check(wire: Wire, name: str) -> None:
    """UserError, by name: the link of receiver ``name`` is not made of vectors alone."""
    config = wire.settings.links[name]
    can = ", ".join(sorted(method for method, kind in InjectionConfig.known().items() if kind.only_vectors))
    if not config.injection.only_vectors:
        raise UserError(
            f"the link of {name!r} injects by {method_of(config.injection)}, which vLLM's prompt_embeds cannot carry; "
            f"only links that inject by {can} can be sent so: let this project's own server answer (`latentwire serve`)"
        )
    if config.lora is not None:
        raise UserError(
            f"the link of {name!r} adapts the receiver by LoRA, which prompt_embeds cannot carry; let this project's "
            "own server answer (`latentwire serve`)"
        )


def method_of(config: InjectionConfig) -> str:
    """The name that an injection is registered by."""
    return next(name for name, kind in InjectionConfig.known().items() if kind is type(config))


def payload(vectors_ME: Tensor) -> bytes:
    """What ``torch.save`` writes of the vectors. Nothing here ever reads such bytes."""
    file = io.BytesIO()
    torch.save(vectors_ME, file)
    return file.getvalue()


def payload_text(vectors_ME: Tensor) -> str:
    """The payload as base64, the ``data`` of vLLM's part."""
    return base64.b64encode(payload(vectors_ME)).decode()


@dataclass(eq=False, kw_only=True)
class EmbedsJob(Job):
    """One packet, to be told as vectors."""

    wire: Wire
    receiver: str
    packet: Packet
    question: str | None = None
    slots: int | None = None
    dtype: str | None = None
    work = "embeds"

    @classmethod
    def run(cls, jobs: list[EmbedsJob], metrics: Metrics) -> None:
        for job in jobs:
            job.say(prompt_embeds(job.wire, job.receiver, job.packet, job.question, job.slots, job.dtype))
