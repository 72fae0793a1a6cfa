"""A link: what one receiver needs of its own to read the latents that all receivers share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from latentwire.adapters import AdapterConfig
from latentwire.adapters.mlp import MLPAdapterConfig
from latentwire.errors import UserError
from latentwire.injections import InjectionConfig
from latentwire.injections.kv_prefix import KVPrefixConfig
from latentwire.prompt import PromptConfig
from latentwire.receivers import Receiver
from latentwire.receivers.load import LoadConfig
from latentwire.receivers.lora import LoRAConfig
from latentwire.types import Latents, Prefix

RESERVE = 128
"""Positions of the receiver's window that are kept for question and answer when a text's latents are placed."""


@dataclass
class LinkConfig:
    """receiver: checkpoint directory, hub id or ``sandbox:NAME``. prompt: the layout this receiver was trained with.

    start: a trained wire (directory, hub id or ``sandbox``) whose link of the same name, receiver and config gives a
    new link its first weights. freeze: these weights stay as they are while the rest of a new wire trains.
    like: a link of the wire that this one joins; its adapter, which takes the same latents apart already, gives this
    one's all weights of the same name and shape.
    lora: low-rank additions to the receiver where it reads on top of latents (needs the extra ``lora``); None: it stays
    as it is.
    load: dtype, 4 bits, attention and device of the receiver while it is in memory; no part of a saved wire.
    """

    receiver: str = ""
    adapter: AdapterConfig = field(default_factory=MLPAdapterConfig)
    injection: InjectionConfig = field(default_factory=KVPrefixConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    start: str = ""
    like: str = ""
    freeze: bool = False
    lora: LoRAConfig | None = None
    load: LoadConfig = field(default_factory=LoadConfig)


class Link(nn.Module):
    """Adapter, injection and perhaps LoRA of one receiver.

    ``fertility``: receiver tokens per encoder token, measured on text.
    """

    fertility: Tensor

    def __init__(self, config: LinkConfig, d_z: int, receiver: Receiver) -> None:
        super().__init__()
        self.config = config
        self.adapter = config.adapter.build(d_z, config.injection.slot_width(receiver.geometry))
        self.injection = config.injection.build(receiver.geometry)
        self.lora = config.lora.build(receiver) if config.lora else None
        self.register_buffer("fertility", torch.ones(()))

    def calibrate(self, receiver: Receiver, texts: list[str], source_tokens: int) -> None:
        """Measure on plain text what is not learnt: K/V or embedding statistics, and tokens per source token."""
        self.adapter.calibrate(receiver, texts)
        self.injection.calibrate(receiver, texts)
        self.fertility.fill_(sum(map(len, receiver.prompt.context_ids(texts))) / source_tokens)

    def begin_like(self, other: Link) -> None:
        """Give the adapter what fits of another link's. UserError: nothing does."""
        own, there = self.adapter.state_dict(), other.adapter.state_dict()
        fits = {key: value for key, value in there.items() if key in own and own[key].shape == value.shape}
        if not fits:
            raise UserError(f"no weight of the adapter of link {self.config.like!r} has a place in this link's; give "
                            "both the same type and width")  # fmt: skip
        self.adapter.load_state_dict(own | fits)

    def fingerprint(self) -> str:
        """Sixteen hex digits over the link's weights: results name the links that they were measured with."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def by_rate(self) -> dict[float, list[nn.Parameter]]:
        """What the link learns, by its learning rate as a share of the links'."""
        apart = {} if self.lora is None else {id(p): self.lora.config.rate for p in self.lora.parameters()}
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            groups.setdefault(apart.get(id(parameter), 1.0), []).append(parameter)
        return groups

    def slots(self, asked: int | None = None) -> int:
        """Slots for each latent: what was asked for, or the link's first. UserError: it was not made for that many."""
        known = self.config.adapter.slots
        if asked is not None and asked not in known:
            raise UserError(f"this link gives {' or '.join(map(str, known))} slots for a latent, not {asked}")
        return known[0] if asked is None else asked

    def place(self, parts: Sequence[Latents], receiver: Receiver, slots: int) -> tuple[Tensor, Tensor]:
        """Where slots stand (float [B, S]) and where the next token stands (int64 [B]), in receiver positions.

        parts: the latents of one packet of each row, then of the next. Their texts stand behind one another as
        ``Prompt.contexts_ids`` puts them, and slots are spread evenly over the text they stand for, so the question
        stands where it would behind the texts. What is longer than the window is squeezed into it: positions come
        closer together, nothing is cut.
        """
        start = receiver.head().mask_BM.shape[1]
        room = max(receiver.geometry.window - start - RESERVE, 1)
        lengths = [part.source_B * self.fertility for part in parts]
        whole_B = torch.stack(lengths).sum(0)
        kept_B = whole_B.clamp_max(room)
        begin_B, positions = torch.zeros_like(kept_B), []
        for part, length_B in zip(parts, lengths, strict=True):
            length_B = kept_B * (length_B / whole_B.clamp_min(1e-6))
            step_B = length_B / (part.count_B * slots).clamp_min(1)
            index_S = torch.arange(part.mask_BM.shape[1] * slots, device=part.z_BMD.device)
            # padded slots stay where the text ends: behind it, a table of positions may end
            place_BS = ((index_S + 0.5) * step_B[:, None]).minimum(length_B[:, None])
            positions.append(start + begin_B[:, None] + place_BS - 0.5)
            begin_B = begin_B + length_B
        return _behind(positions).clamp_min(0), start + kept_B.round().long()

    def forward(
        self,
        latents: Latents,
        receiver: Receiver,
        mode: str = "context",
        slots: int | None = None,
        seen: list[tuple[Tensor, Tensor]] | None = None,
        behind: Sequence[Latents] = (),
    ) -> Prefix:
        """What the receiver has read after head and latents. ``slots``: for each latent, the link's first if None.
        seen: receives the adapter's slots [B, S, E] and their mask [B, S]. behind: the latents of further packets of
        each row, read one behind the other; a row without one has no latents there."""
        slots, parts = self.slots(slots), (latents, *behind)
        # each packet is taken apart alone, as in training; the receiver then has the slots of all
        slots_BSE = _behind([self.adapter(part, mode, slots) for part in parts])
        positions_BS, next_B = self.place(parts, receiver, slots)
        mask_BS = _behind([part.mask_BM.repeat_interleave(slots, 1) for part in parts])
        if seen is not None:
            seen.append((slots_BSE, mask_BS))
        prefix = self.injection(slots_BSE, mask_BS, positions_BS, next_B, receiver)
        return replace(prefix, lora=self.lora is not None)


def _behind(tensors: Sequence[Tensor]) -> Tensor:
    """Along the second dimension, one behind the other; one alone is not copied."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), 1)
