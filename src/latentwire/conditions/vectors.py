"""Vectors of a receiver's own input embeddings, read by it in place of tokens: what conditions of that kind share.

They are read as soft tokens are, behind the receiver's own head and below the same question, so that whatever they
score is a matter of the vectors. Vectors that are sent (not replayed) go through the codec of the row, in the scale in
which an encoder's latents go: about 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentwire.codecs import Codec
from latentwire.data.rows import read_examples
from latentwire.data.squad import shipped_valid
from latentwire.receivers import Receiver
from latentwire.receivers.receiver import pad
from latentwire.types import Prefix

if TYPE_CHECKING:
    from latentwire.link import Link

SAMPLE = 256
"""Paragraphs of plain text that statistics of embeddings are taken from."""


@dataclass(frozen=True)
class Words:
    """Input embeddings of the tokens of a sample of plain text, each distinct one once: words_NE float32 on the CPU,
    and how often each occurs, count_N."""

    words_NE: Tensor
    count_N: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, receiver: Receiver, texts: list[str]) -> Words:
        """Of these texts, as contexts of the receiver's layout."""
        ids = torch.tensor([token for row in receiver.prompt.context_ids(texts) for token in row])
        distinct_N, count_N = ids.unique(return_counts=True)
        # of embed(ids), not of the weight: Gemma scales inside
        words_NE = receiver.embed(distinct_N[None].to(receiver.device))[0].float().cpu()
        return cls(words_NE, count_N)

    @property
    def rms(self) -> float:
        """Root mean square of an embedding's values; a token counts as often as it occurs."""
        return float((self.words_NE.square().mean(-1) * self.count_N).sum() / self.count_N.sum()) ** 0.5


@cache
def sample() -> tuple[str, ...]:
    """Plain text that is always the same: every so many of the paragraphs that come along with the package.

    Where the shipped questions are evaluated, some of their own paragraphs are in it. Only the frequencies of tokens
    are taken from it, and what they do for a condition is done in its favour.
    """
    texts = list(dict.fromkeys(example.context for example in read_examples(shipped_valid())))
    return tuple(texts[:: max(1, len(texts) // SAMPLE)][:SAMPLE])


@dataclass(frozen=True)
class Reader:
    """Who reads vectors, and in what terms they are sent.

    link: of the receiver. d_z: width of the wire's latents. mode: of the evaluation. words: embeddings of a sample,
    looked up where they are wanted. codec: of the row. tokens, room: of each example, tokens that vectors stand for and
    bytes of its packet (none where the row has no ratio). ratio: of the row. gain: what vectors that are no replay are
    multiplied by.
    """

    receiver: Receiver
    link: Link
    d_z: int
    mode: str
    words: Callable[[], Words]
    codec: Codec
    tokens: list[int]
    room: list[int]
    ratio: int | None = None
    gain: float = 1.0


class Maker:
    """Replays tokens as their input embeddings; a condition's own maker changes what it has to."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def positions(self, tokens: int) -> int:
        """K/V positions that so many tokens take."""
        return tokens

    def nbytes(self, tokens: int) -> int | None:
        """Exact bytes that are sent for so many tokens; None: what is sent is the text."""
        return None

    def embeds(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """What stands for tokens [B, T, E]: their own embeddings."""
        return self.reader.receiver.embed(ids_BT)

    def vectors(self, embeds_BTE: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors [B, S, E] for embeddings of tokens, their mask, and the token at which each stands (int64 [B, S])."""
        return embeds_BTE, mask_BT, torch.arange(mask_BT.shape[1], device=mask_BT.device).expand_as(mask_BT)

    @torch.no_grad()
    def prefix(self, ids: list[list[int]]) -> Prefix:
        """What the receiver has read after head and vectors; what follows stands where it would behind the tokens."""
        receiver = self.reader.receiver
        mask_BT, ids_BT = pad(ids, receiver.prompt.pad_id, receiver.device)
        head = receiver.head_for(len(ids))
        vectors_BSE, mask_BS, places_BS = self.vectors(self.embeds(ids_BT, mask_BT), mask_BT)
        positions_BS = head.next_B[:, None] + places_BS
        read = receiver.read(None, mask_BS, head, embeds_BTE=vectors_BSE, positions_BT=positions_BS)
        return replace(read, next_B=head.next_B + mask_BT.sum(-1))
