"""A receiver that answers: from packets, or from the text itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from latentwire.errors import UserError
from latentwire.packets import Packet
from latentwire.receivers import Receiver
from latentwire.receivers.decode import generate
from latentwire.receivers.forced import likelihoods
from latentwire.receivers.receiver import pad
from latentwire.types import Prefix

if TYPE_CHECKING:
    from latentwire.wire import Wire


SIFTED = 64
"""Packets that are looked at together, one question behind each."""


class Reading:
    """One receiver of a wire, made by ``wire.receiver(name)``."""

    def __init__(self, wire: Wire, name: str) -> None:
        self.wire, self.name = wire, name

    @property
    def model(self) -> Receiver:
        """The frozen receiver itself."""
        return self.wire.get_receiver(self.name)

    def generate(
        self,
        packet: Packet | Sequence[Packet | Sequence[Packet]],
        prompt: str | list[str],
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        seed: int = 0,
        slots: int | None = None,
        best: int | None = None,
    ) -> str | list[str]:
        """Answer ``prompt`` (the question) from a packet; lists give a batch, one packet may serve many prompts.

        A list within the list is several packets for one prompt, read one behind the other (see :meth:`answer_from`).
        In prompt mode the question is inside the packet already, and ``prompt`` is not shown to the receiver.
        slots: K/V positions for each latent, one of those the link was made for (more of them: slower, truer).
        best: of several packets for one prompt, read only so many (see :meth:`sifted`).
        """
        single = isinstance(packet, Packet) and isinstance(prompt, str)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        rows = [[packet]] if isinstance(packet, Packet) else [[p] if isinstance(p, Packet) else list(p) for p in packet]
        if len(rows) == 1:
            rows = rows * len(prompts)
        if len(rows) != len(prompts):
            raise UserError(
                f"{len(rows)} packets but {len(prompts)} prompts; give as many of one as of the other, "
                "or put packets that one prompt asks about into a list of their own"
            )
        modes = {p.mode for row in rows for p in row}
        if len(modes) > 1:
            raise UserError("packets of context mode and of prompt mode cannot share a batch; ask them apart")
        if "prompt" in modes and max(map(len, rows)) > 1:
            raise UserError(
                "packets of prompt mode hold a question each and cannot be read behind one another; "
                "encode the texts without it"
            )
        if best is not None:
            rows = self.sifted(rows, prompts, best, slots)
        with torch.no_grad():
            first, *behind = self.wire.columns(rows)
            mode = modes.pop()
            prefix = self.wire.prefix(self.name, first, mode, slots, behind=behind)
        layout = self.model.prompt
        tails = layout.question_ids(prompts) if mode == "context" else [layout.anchor_ids()] * len(prompts)
        texts = generate(self.model, prefix, tails, max_new_tokens, 0, temperature, seed).texts
        return texts[0] if single else texts

    def answer_from(self, packets: Sequence[Packet], question: str, **options: Any) -> str:
        """Answer one question from several packets of context mode, read one behind the other in this order.

        Each stands where its text would stand behind the texts before it, and the question behind them all. What is
        longer than the receiver's window is squeezed into it. options: those of :meth:`generate`, ``best`` among them.
        """
        return self.generate([list(packets)], [question], **options)[0]

    @torch.no_grad()
    def sifted(
        self, rows: Sequence[Sequence[Packet]], questions: list[str], best: int, slots: int | None = None
    ) -> list[list[Packet]]:
        """Of each row's packets the ``best`` behind which the receiver finds the row's question likeliest, in the order
        they came in. UserError: ``best`` is below 1.

        Each packet is read alone, and the question behind it: a receiver that gets lost among several texts can still
        tell which of them a question is about (:func:`latentwire.receivers.forced.likelihoods`).
        """
        if best < 1:
            raise UserError(f"best is how many packets are read, from 1, not {best}")
        tails = self.model.prompt.question_ids(questions)
        pairs = [(row, packet) for row, packets in enumerate(rows) if len(packets) > best for packet in packets]
        pairs.sort(key=lambda pair: len(pair[1].z_MD))
        found: dict[tuple[int, int], float] = {}
        for start in range(0, len(pairs), SIFTED):
            batch = pairs[start : start + SIFTED]
            prefix = self.wire.prefix(self.name, self.wire.latents([packet for _, packet in batch]), slots=slots)
            said = likelihoods(self.model, prefix, [tails[row] for row, _ in batch])
            found |= {(row, id(packet)): value for (row, packet), value in zip(batch, said, strict=True)}
        kept = []
        for row, packets in enumerate(rows):
            order = sorted(range(len(packets)), key=lambda place: -found.get((row, id(packets[place])), 0.0))
            kept.append([packets[place] for place in sorted(order[:best])])
        return kept

    def answer(self, text: str | list[str], question: str, max_new_tokens: int = 32) -> str:
        """Answer from the full text (what the latents are measured against), or from several behind one another."""
        texts = [text] if isinstance(text, str) else text
        prefix = _read_ids(self.model, [self.model.prompt.contexts_ids(texts)])
        tails = self.model.prompt.question_ids([question])
        return generate(self.model, prefix, tails, max_new_tokens).texts[0]


def read_text(receiver: Receiver, texts: list[str]) -> Prefix:
    """Head and context as text. A text beyond the receiver's window is refused, never cut silently."""
    return _read_ids(receiver, receiver.prompt.context_ids(texts))


@torch.no_grad()
def _read_ids(receiver: Receiver, ids: list[list[int]]) -> Prefix:
    longest = max(map(len, ids))
    if longest + receiver.head().mask_BM.shape[1] >= receiver.geometry.window:
        raise UserError(
            f"a text has {longest} tokens, more than the window of {receiver.name!r} ({receiver.geometry.window}); "
            "send it as a packet (latents have no such limit), or shorten it"
        )
    mask_BT, ids_BT = pad(ids, receiver.prompt.pad_id, receiver.device)
    return receiver.read(ids_BT, mask_BT, receiver.head_for(len(ids)))
