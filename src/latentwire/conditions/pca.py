"""Principal components of the receiver's own input embeddings, one vector for every token, in the bytes of the packet.

The rival that learns nothing and shortens nothing: for the same bytes, are many narrow vectors worth more than a few
wide ones? Components are fitted on the embeddings of a fixed sample of plain text (``vectors.sample``), in which a
token counts as often as it occurs; never on an encoder's latents or on answers.
"""

from bisect import bisect_right
from dataclasses import dataclass

from torch import Tensor

from latentwire.conditions.base import Condition, Data, VectorCondition
from latentwire.conditions.vectors import Maker, Reader
from latentwire.encoders.pca import Components
from latentwire.packets.packet import HEADER_BYTES


@Condition.register_subclass("pca")
@dataclass
class PCA(VectorCondition):
    """As many components as fit: over all texts together no more bytes than the packets have, header and scales
    included. They are rounded as the packet is, and turned into embeddings again."""

    by_ratio = True
    by_default = False
    by_bits = True

    def not_applicable(self, data: Data) -> str | None:
        assert data.reader is not None
        return None if components(data.reader) else "packets have no room for one component a token"

    def maker(self, reader: Reader) -> Maker:
        return Projected(reader)


def components(reader: Reader) -> int:
    """Components for each token that fit the packets' bytes, at most the embedding width; 0: not one fits."""

    def nbytes(width: int) -> int:
        return sum(HEADER_BYTES + reader.codec.nbytes(tokens, width) for tokens in reader.tokens)

    return bisect_right(range(1, reader.receiver.geometry.width + 1), sum(reader.room), key=nbytes)


class Projected(Maker):
    """Embeddings [B, T, E] → components [B, T, C] → what the codec leaves of them → embeddings [B, T, E]."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self.width = components(reader)
        words = reader.words()
        fitted = Components.fit(words.words_NE, words.count_N, self.width, whiten=False)
        self.fitted = fitted.to(reader.receiver.device)

    def nbytes(self, tokens: int) -> int:
        return HEADER_BYTES + self.reader.codec.nbytes(tokens, self.width)

    def vectors(self, embeds_BTE: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f = self.fitted
        c_BTC = self.reader.codec.fake_quantise((embeds_BTE.float() - f.mean_E) @ f.axes_CE.mT / f.scale_C)
        return super().vectors(f.embeddings(c_BTC) * self.reader.gain, mask_BT)
