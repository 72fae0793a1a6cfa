"""Plain data that crosses rooms, and the one legend of letters.

Shapes are written as a suffix of the name: ``z_BMD`` is a tensor ``[B, M, D]``.

===== ==========================================================
B     batch (texts, or rows of one batch)
T     tokens of a row
M     latents of a text (or prefix slots, where a prefix is meant)
D     width of a latent
E     embedding width of a receiver
L     layers of a receiver
H     key/value heads of a receiver
K     width of a head
V     vocabulary
R     rows behind one passage (questions, continuations, recalls)
===== ==========================================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

MODES = ("context", "prompt")
"""What is encoded: the context alone (its packet answers any question), or context and question together."""


@dataclass(frozen=True)
class Example:
    """One question about one context, with every answer that counts as right (none: the context does not say)."""

    id: str
    context: str
    question: str
    answers: tuple[str, ...]
    dataset: str = ""

    @property
    def gold(self) -> str:
        """The first right answer; an empty one where the context does not say."""
        return self.answers[0] if self.answers else ""


@dataclass(frozen=True)
class Latents:
    """What an encoder makes of a batch of texts.

    z_BMD: float, zero where ``mask_BM`` is False. mask_BM: bool. source_B: int64, tokens of the *encoder* that the
    latents of a text stand for. ratio_B: int64, source tokens per latent (of a full window, where an encoder gives
    every text the same number).
    """

    z_BMD: Tensor
    mask_BM: Tensor
    source_B: Tensor
    ratio_B: Tensor

    @property
    def count_B(self) -> Tensor:
        """Latents of each text, int64 [B]."""
        return self.mask_BM.sum(-1)

    def with_z(self, z_BMD: Tensor) -> Latents:
        """The same latents with other values (quantised, zeroed, swapped)."""
        return replace(self, z_BMD=z_BMD)

    def to(self, device: torch.device) -> Latents:
        """The same latents on another device."""
        return Latents(
            self.z_BMD.to(device), self.mask_BM.to(device), self.source_B.to(device), self.ratio_B.to(device)
        )

    def take(self, index_N: Tensor) -> Latents:
        """Latents of the texts at ``index_N`` (int64 [N])."""
        return Latents(self.z_BMD[index_N], self.mask_BM[index_N], self.source_B[index_N], self.ratio_B[index_N])


@dataclass(frozen=True)
class LayerBlock:
    """What acts behind one decoder layer on every token that is read on top of a prefix.

    layer: its number, from 0. act: ``act(h_BTE, k_BHMK, v_BHMK, mask_BM)`` gives the layer's states as they go on, of
    the same shape and dtype. k_BHMK, v_BHMK: what it reads, of heads and widths of its own. mask_BM: bool, which of
    them are there.
    """

    layer: int
    act: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    k_BHMK: Tensor
    v_BHMK: Tensor
    mask_BM: Tensor

    def __call__(self, h_BTE: Tensor) -> Tensor:
        return self.act(h_BTE, self.k_BHMK, self.v_BHMK, self.mask_BM)

    def each(self, change: Callable[[Tensor], Tensor]) -> LayerBlock:
        """The same block with its tensors changed (rows taken, repeated)."""
        return replace(self, k_BHMK=change(self.k_BHMK), v_BHMK=change(self.v_BHMK), mask_BM=change(self.mask_BM))


@dataclass(frozen=True)
class Prefix:
    """What a frozen receiver has "already read": keys and values for every layer.

    Every way of giving a context (its text, nothing, latents as soft tokens, latents as keys and values) ends as a
    prefix, and every row (question and answer, continuation, recall) is read on top of one.

    kv: per layer ``(k_BHMK, v_BHMK)``, keys after RoPE, on the device of that layer. mask_BM: bool, False where
    padded. next_B: int64, the position
    of the token that follows. blocks: what else acts on whatever is read on top, however much has been read since;
    mostly nothing. lora: whether the receiver's low-rank additions act on it too (see ``receivers/lora.py``).
    positions_BM: where each slot stands (float: a latent may stand between two tokens); a receiver with a sliding
    window goes by them, others need none.
    """

    kv: list[tuple[Tensor, Tensor]]
    mask_BM: Tensor
    next_B: Tensor
    blocks: tuple[LayerBlock, ...] = ()
    lora: bool = False
    positions_BM: Tensor | None = None

    @property
    def count_B(self) -> Tensor:
        """K/V positions that are really there, int64 [B]. Those that blocks read count too, once for all blocks: a
        position that only some layers hold is a position."""
        count_B = self.mask_BM.sum(-1)
        if not self.blocks:
            return count_B
        import torch

        return count_B + torch.stack([block.mask_BM.sum(-1) for block in self.blocks]).amax(0)

    def to(self, dtype: torch.dtype) -> Prefix:
        """The same prefix with keys and values of another dtype."""
        return replace(self, kv=[(k.to(dtype), v.to(dtype)) for k, v in self.kv])

    def then(self, other: Prefix) -> Prefix:
        """This prefix with another behind it (what the other was given already stands at its own positions)."""
        import torch

        kv = [(torch.cat([a, c], 2), torch.cat([b, d], 2)) for (a, b), (c, d) in zip(self.kv, other.kv, strict=True)]
        mask_BM = torch.cat([self.mask_BM, other.mask_BM], 1)
        at_BM = _behind(self.positions_BM, other.positions_BM)
        return Prefix(kv, mask_BM, other.next_B, self.blocks + other.blocks, self.lora or other.lora, at_BM)

    def grown(
        self, kv: list[tuple[Tensor, Tensor]], mask_BT: Tensor, next_B: Tensor, positions_BT: Tensor | None = None
    ) -> Prefix:
        """This prefix once more tokens have been read on top of it. kv: joined with theirs. mask_BT: which of them are
        there; they may be rows of one prefix. positions_BT: where they stand."""
        import torch

        B = mask_BT.shape[0]
        mask_BM = torch.cat([self.mask_BM.expand(B, -1), mask_BT], 1)
        blocks = tuple(b.each(lambda x: x.expand(B, *x.shape[1:])) for b in self.blocks)
        return Prefix(kv, mask_BM, next_B, blocks, self.lora, _behind(self.positions_BM, positions_BT))

    def take(self, index_N: Tensor) -> Prefix:
        """Rows ``index_N`` (int64 [N]): a passage's prefix repeated for each of its questions."""
        kv = [(rows_of(k, index_N), rows_of(v, index_N)) for k, v in self.kv]
        blocks = tuple(block.each(lambda x: x[index_N]) for block in self.blocks)
        at_BM = None if self.positions_BM is None else self.positions_BM[index_N]
        return Prefix(kv, self.mask_BM[index_N], self.next_B[index_N], blocks, self.lora, at_BM)

    def rows(self) -> list[Prefix]:
        """Each row as a prefix of its own, without the padding behind it."""
        import torch

        end_B = (self.mask_BM * torch.arange(1, self.mask_BM.shape[1] + 1, device=self.mask_BM.device)).amax(1).tolist()
        out = []
        for row, end in enumerate(end_B):
            one = self.take(torch.tensor([row], device=self.mask_BM.device))
            kv = [(k[:, :, :end], v[:, :, :end]) for k, v in one.kv]
            at_BM = None if one.positions_BM is None else one.positions_BM[:, :end]
            out.append(replace(one, kv=kv, mask_BM=one.mask_BM[:, :end], positions_BM=at_BM))
        return out

    @staticmethod
    def stacked(parts: list[Prefix]) -> Prefix:
        """Prefixes of one receiver, made alike, as one batch: rows one below the other, shorter ones padded behind."""
        import torch
        from torch.nn.functional import pad

        def joined(xs: list[Tensor], dim: int) -> Tensor:
            most = max(x.shape[dim] for x in xs)
            # pad counts dimensions from the last one
            return torch.cat([pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, most - x.shape[dim])) for x in xs])

        first = parts[0]
        if len(parts) == 1:
            return first
        kv = [
            (joined([part.kv[layer][0] for part in parts], 2), joined([part.kv[layer][1] for part in parts], 2))
            for layer in range(len(first.kv))
        ]
        blocks = tuple(
            replace(
                block,
                k_BHMK=joined([part.blocks[number].k_BHMK for part in parts], 2),
                v_BHMK=joined([part.blocks[number].v_BHMK for part in parts], 2),
                mask_BM=joined([part.blocks[number].mask_BM for part in parts], 1),
            )
            for number, block in enumerate(first.blocks)
        )
        mask_BM = joined([part.mask_BM for part in parts], 1)
        placed = [part.positions_BM for part in parts if part.positions_BM is not None]
        at_BM = joined(placed, 1) if len(placed) == len(parts) else None
        return Prefix(kv, mask_BM, torch.cat([part.next_B for part in parts]), blocks, first.lora, at_BM)


def rows_of(x: Tensor, index_N: Tensor) -> Tensor:
    """Rows of a tensor, copied whole: on a CPU, indexing would look up number by number."""
    return x.index_select(0, index_N.to(x.device))


def _behind(first_BM: Tensor | None, more_BM: Tensor | None) -> Tensor | None:
    """Positions with more of them behind; unknown where either is."""
    import torch

    if first_BM is None or more_BM is None:
        return None
    B = max(len(first_BM), len(more_BM))
    return torch.cat([first_BM.expand(B, -1), more_BM.expand(B, -1)], 1)


@dataclass(frozen=True)
class Generated:
    """Answers of a receiver: texts, and their token ids per row without the end token."""

    texts: list[str]
    ids: list[list[int]]
