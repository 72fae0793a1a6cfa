"""A receiver that answers: from packets, or from the text itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from latentwire.errors import UserError
from latentwire.packets import Packet
from latentwire.receivers import Receiver
from latentwire.receivers.decode import generate
from latentwire.receivers.receiver import pad
from latentwire.types import Prefix

if TYPE_CHECKING:
    from latentwire.wire import Wire


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
        packet: Packet | list[Packet],
        prompt: str | list[str],
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        seed: int = 0,
        slots: int | None = None,
    ) -> str | list[str]:
        """Answer ``prompt`` (the question) from a packet; lists give a batch, one packet may serve many prompts.

        In prompt mode the question is inside the packet already, and ``prompt`` is not shown to the receiver.
        slots: K/V positions for each latent, one of those the link was made for (more of them: slower, truer).
        """
        single = isinstance(packet, Packet) and isinstance(prompt, str)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        packets = [packet] if isinstance(packet, Packet) else list(packet)
        if len(packets) == 1:
            packets = packets * len(prompts)
        if len(packets) != len(prompts):
            raise UserError(f"{len(packets)} packets but {len(prompts)} prompts; give as many of one as of the other")
        modes = {p.mode for p in packets}
        if len(modes) > 1:
            raise UserError("packets of context mode and of prompt mode cannot share a batch; ask them apart")
        mode = modes.pop()
        with torch.no_grad():
            prefix = self.wire.prefix(self.name, self.wire.latents(packets), mode, slots)
        layout = self.model.prompt
        tails = layout.question_ids(prompts) if mode == "context" else [layout.anchor_ids()] * len(prompts)
        texts = generate(self.model, prefix, tails, max_new_tokens, 0, temperature, seed).texts
        return texts[0] if single else texts

    def answer(self, text: str, question: str, max_new_tokens: int = 32) -> str:
        """Answer from the full text (what the latents are measured against)."""
        prefix = read_text(self.model, [text])
        tails = self.model.prompt.question_ids([question])
        return generate(self.model, prefix, tails, max_new_tokens).texts[0]


@torch.no_grad()
def read_text(receiver: Receiver, texts: list[str]) -> Prefix:
    """Head and context as text. A text beyond the receiver's window is refused, never cut silently."""
    ids = receiver.prompt.context_ids(texts)
    longest = max(map(len, ids))
    if longest + receiver.head().mask_BM.shape[1] >= receiver.geometry.window:
        raise UserError(
            f"a text has {longest} tokens, more than the window of {receiver.name!r} ({receiver.geometry.window}); "
            "send it as a packet (latents have no such limit), or shorten it"
        )
    mask_BT, ids_BT = pad(ids, receiver.prompt.pad_id, receiver.device)
    return receiver.read(ids_BT, mask_BT, receiver.head_for(len(texts)))
