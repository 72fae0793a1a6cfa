"""What receivers read before the questions of a batch: packets or texts, each once, and of several the fitting ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from latentwire.errors import UserError
from latentwire.packets import Packet
from latentwire.receivers.decode import alike
from latentwire.receivers.forced import likelihoods
from latentwire.receivers.receiver import pad
from latentwire.serving.errors import invalid
from latentwire.types import Prefix

if TYPE_CHECKING:
    from latentwire.receivers import Receiver
    from latentwire.serving.answering import AnswerJob
    from latentwire.wire import Wire

SIFTED = 64
"""Packets that are looked at together, one question behind each."""


def read(jobs: list[AnswerJob], receiver: Receiver) -> Prefix:
    """What the receiver has read before each question: packets of one mode, or texts.

    A context that was read before, or that several ask about, is not read again. Contexts of like lengths are read
    together, then all of them are put into one batch: making keys and values of padding costs as much as making those
    of latents, having them lie there costs little.
    """
    kept = jobs[0].kept
    keys = [(job.key, job.given()) for job in jobs]
    once = dict(zip(keys, jobs, strict=True))
    rows = {key: prefix for key in once if (prefix := kept.get(key)) is not None}
    fresh = sorted((key for key in once if key not in rows), key=lambda key: once[key].size)
    for start, end in alike([once[key].size for key in fresh]):
        run = fresh[start:end]
        for key, prefix in zip(run, _read([once[key] for key in run], receiver).rows(), strict=True):
            rows[key] = prefix
            kept.put(key, prefix)
    return Prefix.stacked([rows[key] for key in keys])


def _read(jobs: list[AnswerJob], receiver: Receiver) -> Prefix:
    first = jobs[0]
    packets = [job.packet for job in jobs if job.packet is not None]
    if packets:
        return first.wire.prefix(receiver.name, first.wire.latents(packets), packets[0].mode, first.slots)
    mask_BT, ids_BT = pad([job.context for job in jobs], receiver.prompt.pad_id, receiver.device)
    return receiver.read(ids_BT, mask_BT, receiver.head_for(len(jobs)))


def joined(wire: Wire, packets: Sequence[Packet]) -> Packet:
    """Several packets as one, as if their texts had been pieces of one text. Codes are read packet by packet first:
    what they stand for may depend on their neighbours, and another packet's are none."""
    if len(packets) == 1:
        return packets[0]
    first = packets[0]
    if any((packet.mode, packet.ratio) != ("context", first.ratio) for packet in packets):
        raise invalid("several latent parts are read as one text: they have to be of context mode and of one ratio")
    try:
        told = wire.told(packets)
        return replace(
            told[0],
            z_MD=torch.cat([packet.z_MD for packet in told]),
            source_tokens=sum(packet.source_tokens for packet in packets),
        )
    except UserError as error:
        raise invalid(str(error)) from None


def sift(jobs: list[AnswerJob], receiver: Receiver) -> None:
    """Leave those jobs that have more packets than they want read with the best of them, in their order; see
    ``Reading.sifted``. Each packet is read as one alone would be, and kept as such."""
    pairs = [
        (job, place, replace(job, packet=packet, among=(), best=0))
        for job in jobs if job.best < len(job.among) for place, packet in enumerate(job.among)
    ]  # fmt: skip
    found: dict[int, list[tuple[float, int]]] = {}
    for start in range(0, len(pairs), SIFTED):
        batch = pairs[start : start + SIFTED]
        prefix = read([each for _, _, each in batch], receiver)
        said = likelihoods(receiver, prefix, [job.tail for job, _, _ in batch])
        for (job, place, _), value in zip(batch, said, strict=True):
            found.setdefault(id(job), []).append((-value, place))
    for job in jobs:
        if id(job) in found:
            best = sorted(place for _, place in sorted(found[id(job)])[: job.best])
            job.packet = joined(job.wire, [job.among[place] for place in best])
