"""A second reader's tokens of each span, pooled beside the encoder's own.

A receiver with another tokenizer can only learn how *its* words were cut if the packet says so. With layers of that
reader's own (``layers``), the packet also says what that reader makes of the text, and both receivers find in it what
their own weights understand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from latentwire.encoders.base import fill
from latentwire.encoders.trunk import embedding_width, load_trunk, read_both_ways, starting_from
from latentwire.receivers.attention import Layers, route_prefix
from latentwire.receivers.tokenizer import load_tokenizer

NOWHERE = 1 << 20  # where pads stand: behind every span


class Lexicon(nn.Module):
    """Token j of a span is brought to the width ``word`` and mapped by the j-th block of a linear layer, so order
    within the span survives.

    layers: how many of the reader's layers read its tokens first, in both directions (0: the words alone).
    span: encoder tokens of a span; up to ``per_token`` tokens for each of them fit. stretch: tokens kept per encoder
    token where shapes are fixed.
    """

    def __init__(
        self, where: str | Path, assets: Path | None, *, d_z: int, span: int, word: int, per_token: int,
        layers: int, stretch: float,
    ) -> None:  # fmt: skip
        super().__init__()
        with starting_from(assets or where):
            self.tokenizer = load_tokenizer(assets or where)
        self.span, self.per_token, self.stretch = span, per_token, stretch
        self.stacks: list[Layers] = []
        self.lm: PreTrainedModel | None = None
        if layers:
            self.lm = load_trunk(assets, weights=False) if assets else load_trunk(where, layers)
            self.stacks.append(route_prefix(self.lm))
            self.narrow = nn.Linear(2 * embedding_width(self.lm), word, bias=False)
        elif assets:
            self.words = nn.Embedding(*map(int, (assets / "shape").read_text().split()))  # ty: ignore[invalid-argument-type]
        else:
            donor_VE = AutoModel.from_pretrained(where, dtype=torch.float32).get_input_embeddings().weight
            self.words = nn.Embedding(len(donor_VE), word)
            with torch.no_grad():
                # words alone are brought to their width once: a map behind the table would only be multiplied into it
                narrow = nn.Linear(donor_VE.shape[1], word, bias=False)
                self.words.weight.copy_(narrow(donor_VE / donor_VE.std()))
        self.map = nn.Linear(span * per_token * word, d_z, bias=False)

    def prepare(
        self,
        number: int,
        texts: list[str],
        offsets: list[list[tuple[int, int]]],
        pieces: list[tuple[int, int, int]],
        width: int | None,
    ) -> dict[str, np.ndarray]:
        """Ids of this tokenizer per piece, and the encoder token (of the piece) in which each of them begins."""
        other = self.tokenizer([f" {t}" if t else "" for t in texts], add_special_tokens=False,
                               return_offsets_mapping=True, verbose=False)  # fmt: skip
        ids, at = [], []
        for text, a, b in pieces:
            begins = np.array([s for s, _ in other["offset_mapping"][text]])
            mine = np.array([s for s, _ in offsets[text]])
            # the encoder token that covers a character is the last one that begins at or before it
            holder = np.maximum(np.searchsorted(mine, begins, side="right") - 1, 0)
            inside = (holder >= a) & (holder < b)
            ids.append(np.array(other["input_ids"][text])[inside].tolist())
            at.append((holder[inside] - a).tolist())
        fixed = None if width is None else int(width * self.stretch)
        return {
            f"lexicon{number}": fill([row[:fixed] for row in ids], fixed),
            f"lexicon{number}_at": fill([row[:fixed] for row in at], fixed, value=NOWHERE),
        }

    def forward(self, ids_BT: Tensor, at_BT: Tensor, M: int) -> Tensor:
        """Pooled words [B, M, D] of M spans; words beyond ``span * per_token`` of a span are left out."""
        B, T = ids_BT.shape
        J = self.span * self.per_token
        span_BT = at_BT.long() // self.span
        place_T = torch.arange(T, device=ids_BT.device)
        new_BT = torch.ones_like(span_BT, dtype=torch.bool)
        new_BT[:, 1:] = span_BT[:, 1:] != span_BT[:, :-1]
        first_BT = torch.where(new_BT, place_T, 0).cummax(-1).values
        order_BT = place_T - first_BT
        good_BT = (span_BT < M) & (order_BT < J)
        # everything that does not fit lands in one spare cell, which is cut off
        cell_BT = torch.where(good_BT, span_BT * J + order_BT, M * J)
        words_BTE = self.read(ids_BT.long(), at_BT < NOWHERE)
        grid = words_BTE.new_zeros(B, M * J + 1, words_BTE.shape[-1])
        grid = grid.scatter(1, cell_BT[..., None].expand_as(words_BTE), words_BTE)
        return self.map(grid[:, : M * J].reshape(B, M, -1))

    def read(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """What is pooled of each token, ``word`` numbers: of the token, with layers also of its state in the text."""
        if self.lm is None:
            return self.words(ids_BT)
        begin = self.tokenizer.bos_token_id
        if begin is not None:
            ids_BT, mask_BT = (
                nn.functional.pad(ids_BT, (1, 0), value=begin),
                nn.functional.pad(mask_BT, (1, 0), value=1),
            )
        return self.narrow(read_both_ways(self.lm, ids_BT, mask_BT)[:, 0 if begin is None else 1 :])

    def save_assets(self, directory: Path) -> None:
        """Write what building it again needs beside the weights."""
        self.tokenizer.save_pretrained(directory)
        if self.lm is not None:
            self.lm.config.save_pretrained(directory)
        else:
            (directory / "shape").write_text(f"{self.words.num_embeddings} {self.words.embedding_dim}")
