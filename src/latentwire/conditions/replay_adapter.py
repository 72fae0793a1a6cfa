"""The receiver's own input embeddings through its link, a latent for every token: what it does to all there is to know.

A link was never trained on these, so a low score blames nobody; a high one says that its map is near the identity. It
is n/a where the link does not read soft tokens, or where its latents are not as wide as the receiver's embeddings.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from latentwire.conditions.base import Condition, Data, VectorCondition
from latentwire.conditions.vectors import Maker, Reader
from latentwire.injections.soft_tokens import SoftTokens
from latentwire.receivers.receiver import pad
from latentwire.types import Latents, Prefix


@Condition.register_subclass("replay-adapter")
@dataclass
class ReplayAdapter(VectorCondition):
    """Embeddings of mean 0 and variance 1, as every encoder's latents are, at ratio 1."""

    by_default = False

    def not_applicable(self, data: Data) -> str | None:
        assert data.reader is not None
        link, width = data.reader.link, data.reader.receiver.geometry.width
        if not isinstance(link.injection, SoftTokens):
            return "the link makes keys and values, it reads no soft tokens"
        if data.reader.d_z != width:
            return f"the link reads latents of width {data.reader.d_z}, the receiver's embeddings have {width}"
        return None

    def maker(self, reader: Reader) -> Maker:
        return ThroughLink(reader)


class ThroughLink(Maker):
    """Embeddings [B, T, E] as latents [B, T, D = E] → the link → prefix."""

    def positions(self, tokens: int) -> int:
        link = self.reader.link
        return int(link.injection.kv_positions(torch.tensor([tokens * link.slots()])))

    @torch.no_grad()
    def prefix(self, ids: list[list[int]]) -> Prefix:
        receiver, link = self.reader.receiver, self.reader.link
        mask_BT, ids_BT = pad(ids, receiver.prompt.pad_id, receiver.device)
        z_BTE = F.layer_norm(receiver.embed(ids_BT).float(), (receiver.geometry.width,)) * mask_BT[..., None]
        count_B = mask_BT.sum(-1)
        # in tokens of the encoder, so that the link places each latent where the receiver's own token stands
        latents = Latents(z_BTE, mask_BT, count_B / link.fertility, torch.ones_like(count_B))
        on_gpu = receiver.device.type == "cuda"
        with (
            link.injection.at_strength(self.reader.gain),
            torch.autocast(receiver.device.type, torch.bfloat16, enabled=on_gpu),
        ):
            return link(latents, receiver, self.reader.mode)
