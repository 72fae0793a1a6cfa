"""Means of the receiver's own input embeddings over spans of ``ratio`` tokens, as soft tokens: an encoder that is none.

What any trained encoder has to beat. A mean of embeddings is shorter than an embedding, so each is brought to the
receiver's own scale: the RMS of its embeddings of plain text, where the gain of ``soft-tokens`` starts as well.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from latentwire.conditions.base import Condition, VectorCondition
from latentwire.conditions.vectors import Maker, Reader
from latentwire.encoders.tokens import span_means
from latentwire.packets.packet import HEADER_BYTES


@Condition.register_subclass("mean-pooled")
@dataclass
class MeanPooled(VectorCondition):
    """Spans are of the receiver's own tokens, and a mean stands in the middle of its span. What is sent is of the
    receiver's embedding width, with a packet's header and codec."""

    by_ratio = True
    by_default = False
    by_bits = True

    def maker(self, reader: Reader) -> Maker:
        return Pooled(reader)


class Pooled(Maker):
    """Embeddings [B, T, E] → means [B, S, E] of RMS 1 → what the codec leaves of them → in the receiver's scale."""

    @property
    def ratio(self) -> int:
        """Tokens of a span."""
        assert self.reader.ratio is not None
        return self.reader.ratio

    def positions(self, tokens: int) -> int:
        return -(-tokens // self.ratio)

    def nbytes(self, tokens: int) -> int:
        return HEADER_BYTES + self.reader.codec.nbytes(self.positions(tokens), self.reader.receiver.geometry.width)

    def vectors(self, embeds_BTE: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count_B = mask_BT.sum(-1)
        means_BSE = span_means(embeds_BTE.float(), count_B, self.ratio)
        start_S = torch.arange(means_BSE.shape[1], device=mask_BT.device) * self.ratio
        mask_BS = start_S < count_B[:, None]
        rms_BS1 = means_BSE.square().mean(-1, keepdim=True).sqrt()
        unit_BSE = self.reader.codec.fake_quantise(means_BSE / rms_BS1.clamp_min(1e-12))
        last_BS = (start_S + self.ratio).minimum(count_B[:, None]) - 1
        # soft tokens are tokens to the receiver: whole positions (learned position tables know no others)
        middle_BS = ((start_S + last_BS) // 2).clamp_min(0)
        return unit_BSE * (self.reader.words().rms * self.reader.gain), mask_BS, middle_BS
