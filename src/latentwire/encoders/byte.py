"""UTF-8 bytes through a small transformer from scratch; learned queries gather them into latents.

The encoder of the first implementation, kept as the baseline that needs no pretrained model. There is no evidence that
an encoder trained from scratch competes with a pretrained one at a few billion tokens. Its unit of length is the byte:
``ratio`` is bytes per latent here.

Private latents: with ``receivers`` the latents of a packet come in groups of ``shared`` that every receiver reads and
``private`` ones for each receiver named, which no other is given. Within a group they stand in the order of the text,
so that the packet stays one sequence, what a receiver reads of it is one too, and a latent's number says whose it is.
A receiver that is not named (a late joiner) reads the shared ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.encoders.base import Encoder, EncoderConfig, Source, cut, fill
from latentwire.encoders.spans import piece_numbers, slots_of
from latentwire.errors import UserError
from latentwire.types import Latents

SHARED = ""
"""The owner of latents that every receiver reads."""


@EncoderConfig.register_subclass("byte")
@dataclass
class ByteEncoderConfig(EncoderConfig):
    """width, layers, heads: of the transformer. window: bytes of a piece. fixed: a text has window / ratio latents
    whatever its length.

    receivers: names of links that get latents of their own. shared, private: latents of a group that are everyone's,
    and that are each such link's own; a group has ``shared + private * len(receivers)``, and with ``fixed`` the number
    of latents is a multiple of that (shared 16, private 8 and two receivers: 32 latents in one group).
    """

    ratios: tuple[int, ...] = (16,)
    window: int = 1024
    width: int = 256
    layers: int = 6
    heads: int = 4
    fixed: bool = False
    receivers: list[str] = field(default_factory=list)
    shared: int = 1
    private: int = 1

    @property
    def chars(self) -> float:
        return 1.0

    def build(self, assets: Path | None = None) -> ByteEncoder:
        if self.shared < 1 or self.private < 1:
            raise UserError(
                f"encoder.shared is {self.shared} and encoder.private {self.private}; each is at least 1 (name no "
                "receivers where there is nothing private)"
            )
        if len(set(self.receivers)) < len(self.receivers) or SHARED in self.receivers:
            raise UserError(f"encoder.receivers are names of links, each once, not {self.receivers}")
        group = len(self.group()[0])
        for ratio in self.ratios:
            if self.fixed and group > 1 and -(-self.window // ratio) % group:
                raise UserError(
                    f"ratio {ratio} gives {-(-self.window // ratio)} latents, no multiple of the {group} of a group "
                    f"(shared {self.shared} + private {self.private} x {len(self.receivers)} receivers); change "
                    "encoder.window, shared or private"
                )
        if self.unit() > self.window:
            raise UserError(
                f"a group of {group} latents takes up to {self.unit()} bytes, encoder.window is {self.window}; raise it"
            )
        return ByteEncoder(self)

    def group(self) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """Owners of a group's latents in their order, and where in the group each stands (0 to 1). The first is shared:
        however short a text is, everyone reads something."""
        if not self.receivers:
            return (SHARED,), (0.5,)
        found = [((i + 0.5) / self.shared, -1, SHARED) for i in range(self.shared)]
        for number, name in enumerate(self.receivers):
            found += [((i + 0.5) / self.private, number, name) for i in range(self.private)]
        first, *rest = found
        ordered = [first, *sorted(rest)]
        return tuple(owner for _, _, owner in ordered), tuple(place for place, _, _ in ordered)

    def unit(self) -> int:
        """Bytes of which pieces are multiples, so that in a text of several pieces whole groups follow one another."""
        return len(self.group()[0]) * math.lcm(*self.ratios) if self.receivers and not self.fixed else 1


class ByteEncoder(Encoder):
    """Bytes [B, T] → transformer → queries at the middle of each span attend to all bytes, gated → z [B, M, D]."""

    config: ByteEncoderConfig
    offsets_P: Tensor

    def __init__(self, config: ByteEncoderConfig) -> None:
        super().__init__()
        self.config = config
        W = config.width
        self.embed = nn.Embedding(256, W)
        layer = nn.TransformerEncoderLayer(W, config.heads, 4 * W, dropout=0.0, activation="gelu", batch_first=True,
                                           norm_first=True)  # fmt: skip
        self.body = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.query = nn.Parameter(torch.randn(W) * 0.02)
        self.gather = nn.MultiheadAttention(W, config.heads, batch_first=True)
        self.gate = nn.Linear(W, W)
        self.out = nn.Linear(W, config.d_z)
        self.norm = nn.LayerNorm(config.d_z, elementwise_affine=False)
        self.receivers = list(config.receivers)
        self.owners, offsets = config.group()
        if config.receivers:
            self.register_buffer("offsets_P", torch.tensor(offsets), persistent=False)
            # what tells a private query from a shared one
            self.own = nn.ParameterDict({name: nn.Parameter(torch.randn(W) * 0.02) for name in config.receivers})

    def prepare(self, texts: list[str], width: int | None = None) -> Source:
        rows = [list(text.encode()) for text in texts]
        pieces, owner_P = cut(rows, self.config.window, self.config.unit())
        ids = fill([rows[text][a:b] for text, a, b in pieces], width)
        arrays = {"ids": ids, "count": fill([[b - a] for _, a, b in pieces], 1)[:, 0]}
        if self.config.fixed:
            arrays["piece"] = piece_numbers(owner_P)
        return Source(arrays, owner_P, len(texts))

    def forward(self, batch: dict[str, Tensor], ratio: int) -> Latents:
        self.check_ratio(ratio)
        ids_BT, count_B = batch["ids"].long(), batch["count"].long()
        T = ids_BT.shape[1]
        place_T = torch.arange(T, device=ids_BT.device)
        pad_BT = place_T >= count_B[:, None]
        wave_TW = sinusoid(place_T, self.config.width)
        x_BTW = self.body(self.embed(ids_BT) + wave_TW, src_key_padding_mask=pad_BT)
        offsets_P = self.offsets_P if self.receivers else None
        slots = slots_of(batch, T, ratio, self.config.window if self.config.fixed else 0, offsets_P)
        query_BMW = self.query + sinusoid(slots.middle_BM, self.config.width)
        if self.receivers:
            query_BMW = query_BMW + F.embedding(slots.within_BM, self.own_queries())
        found_BMW, _ = self.gather(query_BMW, x_BTW + wave_TW, x_BTW, key_padding_mask=pad_BT, need_weights=False)
        z_BMD = self.out(found_BMW * torch.sigmoid(self.gate(query_BMW)))
        z_BMD = self.norm(z_BMD.float()) * slots.mask_BM[..., None]
        return Latents(z_BMD, slots.mask_BM, count_B, torch.full_like(count_B, ratio))

    def own_queries(self) -> Tensor:
        """What is added to the queries of a group's P latents, [P, W]: nothing to those that are shared."""
        return torch.stack([self.own.get(owner, torch.zeros_like(self.query)) for owner in self.owners])

    def part(self, latents: Latents, receiver: str) -> Latents:
        P = len(self.owners)
        chosen = [place for place, owner in enumerate(self.owners) if owner in (SHARED, receiver)]
        if len(chosen) == P:
            return latents
        B, M, D = latents.z_BMD.shape
        # the places are known beforehand: nothing here depends on the device or waits for it
        z_BGPD = F.pad(latents.z_BMD, (0, 0, 0, -M % P)).reshape(B, -1, P, D)
        mask_BGP = F.pad(latents.mask_BM, (0, -M % P)).reshape(B, -1, P)
        return replace(
            latents,
            z_BMD=torch.stack([z_BGPD[:, :, place] for place in chosen], 2).flatten(1, 2),
            mask_BM=torch.stack([mask_BGP[:, :, place] for place in chosen], 2).flatten(1, 2),
        )

    def save_assets(self, directory: Path) -> None:
        """Nothing but weights: bytes need no tokenizer."""


def sinusoid(place_T: Tensor, width: int) -> Tensor:
    """Sine and cosine positions [T, width] (Vaswani et al. 2017); fractional places allowed, and leading dimensions."""
    rate = torch.exp(torch.arange(0, width, 2, device=place_T.device) * (-math.log(10_000.0) / width))
    angle = place_T[..., None].float() * rate
    return torch.cat([angle.sin(), angle.cos()], -1)[..., :width]
