"""Ways of making a sequence shorter: token features [B, T, F] to one vector per span, [B, ceil(T / ratio), W].

``queries``: learned queries attend to all tokens (Set Transformer, Lee et al. 2019; Perceiver, Jaegle et al. 2021).
``stages``: neighbours are merged in pairs, attention before each merge (Funnel-Transformer, Dai et al. 2020).
``convolution``: a convolution whose stride is the ratio and which looks half a span to either side.
``expand``: several spans are pooled to one vector (as xRAG does with a whole passage, Cheng et al. 2024), which is
expanded to their slots again and refined over all slots: the narrowest of the four.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.encoders.blocks import Block
from latentwire.encoders.byte import sinusoid
from latentwire.errors import UserError


class Pooler(nn.Module):
    """``forward(x_BTW, count_B, ratio)`` gives [B, ceil(T / ratio), W]. x is zero behind the ``count_B`` tokens of a
    text, and what is there reaches no vector of a span that begins before."""

    def __init__(self, width: int, heads: int, ratios: tuple[int, ...], group: int) -> None:
        super().__init__()

    def forward(self, x_BTW: Tensor, count_B: Tensor, ratio: int) -> Tensor:
        raise NotImplementedError


class Queries(Pooler):
    """One learned query, told apart by the middle of its span: any number of spans, and any ratio."""

    def __init__(self, width: int, heads: int, ratios: tuple[int, ...], group: int) -> None:
        super().__init__(width, heads, ratios, group)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.block = Block(width, heads)

    def forward(self, x_BTW: Tensor, count_B: Tensor, ratio: int) -> Tensor:
        B, T, W = x_BTW.shape
        place_T = torch.arange(T, device=x_BTW.device)
        query_MW = self.query + sinusoid(middles(T, ratio, x_BTW.device), W)
        # the body may have mixed places away: keys are told again where they stand
        return self.block(query_MW.expand(B, -1, -1), place_T < count_B[:, None], x_BTW + sinusoid(place_T, W))


class Stages(Pooler):
    """Attention, then pairs merged by a linear layer beside their mean, until a span is one vector.

    Small ratios are the first stages of large ones, so all share their weights.
    """

    def __init__(self, width: int, heads: int, ratios: tuple[int, ...], group: int) -> None:
        super().__init__(width, heads, ratios, group)
        if odd := [ratio for ratio in ratios if ratio & (ratio - 1)]:
            raise UserError(f"pooler 'stages' halves: ratio {odd[0]} is no power of two; take another ratio or pooler")
        count = max(ratios).bit_length() - 1
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(count))
        self.merges = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(count))

    def forward(self, x_BTW: Tensor, count_B: Tensor, ratio: int) -> Tensor:
        B, _, W = x_BTW.shape
        for stage in range(ratio.bit_length() - 1):
            T = x_BTW.shape[1]
            real_BT = torch.arange(T, device=x_BTW.device) < count_B[:, None]
            x_BTW = self.blocks[stage](x_BTW, real_BT) * real_BT[..., None]
            pairs_BM2W = F.pad(x_BTW, (0, 0, 0, T % 2)).reshape(B, -1, 2, W)
            x_BTW = pairs_BM2W.mean(2) + self.merges[stage](pairs_BM2W.flatten(2))
            count_B = -(-count_B // 2)
        return x_BTW


class Convolution(Pooler):
    """A convolution of its own for each ratio, then GELU and a linear layer."""

    def __init__(self, width: int, heads: int, ratios: tuple[int, ...], group: int) -> None:
        super().__init__(width, heads, ratios, group)
        self.strides = nn.ModuleDict(
            {str(r): nn.Conv1d(width, width, r + 2 * (r // 2), stride=r, padding=r // 2) for r in ratios}
        )
        self.out = nn.Linear(width, width)

    def forward(self, x_BTW: Tensor, count_B: Tensor, ratio: int) -> Tensor:
        # zeros behind a text are what the convolution pads with: it cannot tell a longer batch from an end
        x_BWT = F.pad(x_BTW, (0, 0, 0, -x_BTW.shape[1] % ratio)).transpose(1, 2)
        return self.out(F.gelu(self.strides[str(ratio)](x_BWT).transpose(1, 2)))


class Expand(Pooler):
    """``group`` spans are pooled to one vector by learned weights; it grows to ``group`` slots, which attend to all."""

    def __init__(self, width: int, heads: int, ratios: tuple[int, ...], group: int) -> None:
        super().__init__(width, heads, ratios, group)
        if group < 1:
            raise UserError(f"encoder.group is {group}: one vector is expanded to at least 1 slot")
        self.group = group
        self.score = nn.Linear(width, 1)
        self.grow = nn.Linear(width, group * width)
        self.block = Block(width, heads)

    def forward(self, x_BTW: Tensor, count_B: Tensor, ratio: int) -> Tensor:
        B, T, W = x_BTW.shape
        middle_M = middles(T, ratio, x_BTW.device)
        x_BTW = F.pad(x_BTW, (0, 0, 0, -T % (ratio * self.group)))
        real_BT = torch.arange(x_BTW.shape[1], device=x_BTW.device) < count_B[:, None]
        # a finite number: all tokens of a span may lie behind the end, and their share of nothing must not be NaN
        score_BT = self.score(x_BTW)[..., 0].float().masked_fill(~real_BT, -1e9)
        shape = B, -1, ratio * self.group
        share_BSR = score_BT.reshape(shape).softmax(-1)
        one_BSW = (share_BSR[..., None] * x_BTW.reshape(*shape, W)).sum(2)
        slots_BMW = self.grow(one_BSW).reshape(B, -1, W)[:, : len(middle_M)] + sinusoid(middle_M, W)
        number_M = torch.arange(len(middle_M), device=x_BTW.device)
        return self.block(slots_BMW, number_M < (-(-count_B // ratio))[:, None])


POOLERS: dict[str, type[Pooler]] = {
    "queries": Queries,
    "stages": Stages,
    "convolution": Convolution,
    "expand": Expand,
}


class Reader(nn.Module):
    """Features [B, T, F] → linear, places, ``layers`` blocks in both directions, pooler → [B, ceil(T / ratio), W]."""

    def __init__(
        self, features: int, *, width: int, layers: int, heads: int, pooler: str, group: int, ratios: tuple[int, ...]
    ) -> None:
        super().__init__()
        if pooler not in POOLERS:
            raise UserError(f"encoder.pooler is one of {', '.join(POOLERS)}, not {pooler!r}")
        self.width = width
        self.narrow = nn.Linear(features, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.pooler = POOLERS[pooler](width, heads, ratios, group)

    def forward(self, features_BTF: Tensor, count_B: Tensor, ratio: int) -> Tensor:
        place_T = torch.arange(features_BTF.shape[1], device=features_BTF.device)
        real_BT = place_T < count_B[:, None]
        x_BTW = self.narrow(features_BTF) + sinusoid(place_T, self.width)
        for block in self.blocks:
            x_BTW = block(x_BTW, real_BT)
        return self.pooler(x_BTW * real_BT[..., None], count_B, ratio)


def middles(T: int, ratio: int, device: torch.device) -> Tensor:
    """Places of the middles of ceil(T / ratio) spans, in tokens."""
    return (torch.arange(-(-T // ratio), device=device) + 0.5) * ratio
