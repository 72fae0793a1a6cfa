"""A pretrained causal LM read in both directions, its last states pooled over contiguous spans.

Pooling the states of a pretrained LM keeps more than memory tokens (mean-pooling with distillation; ARC-Encoder), and
slots in proportion to the length keep more than a fixed number. Each span's states stand beside its token embeddings
before they are pooled by one linear layer: the states say what the text means, the embeddings which words it uses.
Spans of the smallest ratio are pooled first; larger ratios join neighbouring ones, so that one encoder serves them all
for few parameters more.

Lexicons: a second reader's tokens of the same span, looked up in an embedding of their own and pooled beside the rest.
A receiver with another tokenizer can only learn how *its* words were cut if the packet says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from latentwire.encoders.base import Encoder, EncoderConfig, Source, cut, fill
from latentwire.errors import UserError
from latentwire.receivers.attention import NAME, additive, route_prefix
from latentwire.receivers.tokenizer import load_tokenizer
from latentwire.types import Latents


@EncoderConfig.register_subclass("lm")
@dataclass
class LMEncoderConfig(EncoderConfig):
    """init: checkpoint directory or hub id of a causal LM, whose weights the encoder starts from.

    pool: ``concat`` (one linear layer over a span's states and embeddings side by side) or ``mean``. lexicons: further
    checkpoints whose tokens of each span are pooled beside it; ``per_token``: how many of them per encoder token fit,
    ``word``: the width to which each is brought first.
    """

    init: str = ""
    pool: str = "concat"
    causal: bool = False
    lexicons: list[str] = field(default_factory=list)
    per_token: int = 2
    word: int = 160

    def build(self, assets: Path | None = None) -> LMEncoder:
        if assets is None and not self.init:
            raise UserError("encoder.init is empty: name the checkpoint of a causal LM that the encoder starts from")
        if self.pool not in ("concat", "mean"):
            raise UserError(f"encoder.pool is 'concat' or 'mean', not {self.pool!r}")
        if odd := [ratio for ratio in self.ratios if ratio % min(self.ratios)]:
            raise UserError(f"ratio {odd[0]} is no multiple of the smallest ratio {min(self.ratios)}")
        return LMEncoder(self, assets)


class LMEncoder(Encoder):
    """See the module's docstring. Latents of a span depend on the whole piece, never on its padding."""

    def __init__(self, config: LMEncoderConfig, assets: Path | None) -> None:
        super().__init__()
        self.config: LMEncoderConfig = config
        where = assets / "lm" if assets else Path(config.init) if Path(config.init).is_dir() else config.init
        try:
            self.tokenizer = load_tokenizer(where)
            if assets:
                self.lm = AutoModel.from_config(AutoConfig.from_pretrained(where), dtype=torch.float32)
            else:
                self.lm = AutoModel.from_pretrained(where, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot start the encoder from {where}: {' '.join(str(error).split())[:300]}") from None
        self.lm.config._attn_implementation = NAME
        self.layers = route_prefix(self.lm)
        width = self.lm.get_input_embeddings().embedding_dim
        self.span = min(config.ratios)
        self.pool = nn.Linear((1 if config.pool == "mean" else self.span) * 2 * width, config.d_z)
        self.joins = nn.ModuleDict(
            {
                str(ratio): nn.Linear(ratio // self.span * config.d_z, config.d_z)
                for ratio in config.ratios
                if ratio > self.span
            }
        )
        self.lexicons = nn.ModuleList(
            Lexicon(where, config, assets / f"lexicon{i}" if assets else None)
            for i, where in enumerate(config.lexicons)
        )
        self.norm = nn.LayerNorm(config.d_z, elementwise_affine=False)

    def prepare(self, texts: list[str], width: int | None = None) -> Source:
        begin = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        tokens = self.tokenizer(
            [f" {text}" if text else "" for text in texts],
            add_special_tokens=False,
            return_offsets_mapping=bool(self.lexicons),
            verbose=False,
        )
        pieces, owner_P = cut(tokens["input_ids"], self.config.window)
        ids = [begin + tokens["input_ids"][text][a:b] for text, a, b in pieces]
        arrays = {
            "ids": fill(ids, None if width is None else width + len(begin)),
            "count": fill([[b - a] for _, a, b in pieces], 1)[:, 0],
        }
        for number, lexicon in enumerate(self.lexicons):
            arrays |= lexicon.prepare(number, texts, tokens["offset_mapping"], pieces, width)  # ty: ignore[not-callable]
        return Source(arrays, owner_P, len(texts))

    def forward(self, batch: dict[str, Tensor], ratio: int) -> Latents:
        self.check_ratio(ratio)
        ids_BT, count_B = batch["ids"].long(), batch["count"].long()
        begin = 0 if self.tokenizer.bos_token_id is None else 1
        place_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        mask_BT = place_T < (count_B + begin)[:, None]
        sees_BTT = mask_BT[:, None, :].expand(-1, len(place_T), -1)
        if self.config.causal:  # ty: ignore[missing-attribute]
            sees_BTT = sees_BTT & (place_T[:, None] >= place_T)
        embeds_BTE = self.lm.get_input_embeddings()(ids_BT)
        device = embeds_BTE.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else embeds_BTE.dtype
        states_BTE = self.lm(
            inputs_embeds=embeds_BTE,
            attention_mask=additive(sees_BTT[:, None], self.lm, dtype),
            position_ids=place_T[None].expand_as(ids_BT),
            use_cache=False,
        ).last_hidden_state
        both_BTF = torch.cat([states_BTE, embeds_BTE.to(states_BTE.dtype)], -1)[:, begin:]
        both_BTF = both_BTF * mask_BT[:, begin:, None]
        z_BMD = self._pool(both_BTF, count_B)
        for number, lexicon in enumerate(self.lexicons):
            z_BMD = z_BMD + lexicon(batch[f"lexicon{number}"], batch[f"lexicon{number}_at"], z_BMD.shape[1])
        if ratio > self.span:
            many = ratio // self.span
            z_BMD = nn.functional.pad(z_BMD, (0, 0, 0, -z_BMD.shape[1] % many))
            z_BMD = self.joins[str(ratio)](z_BMD.reshape(z_BMD.shape[0], -1, many * z_BMD.shape[-1]))
        mask_BM = torch.arange(z_BMD.shape[1], device=ids_BT.device) < (-(-count_B // ratio))[:, None]
        z_BMD = self.norm(z_BMD.float()) * mask_BM[..., None]
        return Latents(z_BMD, mask_BM, count_B, torch.full_like(count_B, ratio))

    def _pool(self, both_BTF: Tensor, count_B: Tensor) -> Tensor:
        """Spans of the smallest ratio [B, T / span, D]; spans behind the end of a text are zero."""
        B, T, F = both_BTF.shape
        both_BTF = nn.functional.pad(both_BTF, (0, 0, 0, -T % self.span))
        spans_BMRF = both_BTF.reshape(B, -1, self.span, F)
        filled_BM = count_B[:, None] - self.span * torch.arange(spans_BMRF.shape[1], device=count_B.device)
        if self.config.pool == "concat":  # ty: ignore[missing-attribute]
            pooled_BMD = self.pool(spans_BMRF.flatten(2))
        else:
            pooled_BMD = self.pool(spans_BMRF.sum(2) / filled_BM.clamp(1, self.span)[..., None])
        return pooled_BMD * (filled_BM > 0)[..., None]

    def save_assets(self, directory: Path) -> None:
        (directory / "lm").mkdir(parents=True, exist_ok=True)
        self.lm.config.save_pretrained(directory / "lm")
        self.tokenizer.save_pretrained(directory / "lm")
        for number, lexicon in enumerate(self.lexicons):
            lexicon.tokenizer.save_pretrained(directory / f"lexicon{number}")  # ty: ignore[not-callable]
            words = lexicon.words
            (directory / f"lexicon{number}" / "shape").write_text(f"{words.num_embeddings} {words.embedding_dim}")


class Lexicon(nn.Module):
    """Another reader's tokens, pooled per span: token j of a span is embedded and mapped by the j-th block of a
    linear layer, so order within the span survives."""

    def __init__(self, where: str, config: LMEncoderConfig, assets: Path | None) -> None:
        super().__init__()
        self.tokenizer = load_tokenizer(assets or where)
        if assets:
            self.words = nn.Embedding(*map(int, (assets / "shape").read_text().split()))  # ty: ignore[invalid-argument-type]
        else:
            donor = AutoModel.from_pretrained(where, dtype=torch.float32).get_input_embeddings()
            self.words = nn.Embedding(donor.num_embeddings, donor.embedding_dim)
            with torch.no_grad():
                self.words.weight.copy_(donor.weight / donor.weight.std())
        self.per_token, self.span = config.per_token, min(config.ratios)
        self.narrow = nn.Linear(self.words.embedding_dim, config.word, bias=False)
        self.map = nn.Linear(self.span * self.per_token * config.word, config.d_z, bias=False)

    def prepare(
        self,
        number: int,
        texts: list[str],
        offsets: list[list[tuple[int, int]]],
        pieces: list[tuple[int, int, int]],
        width: int | None,
    ) -> dict:
        """Ids of this tokenizer per piece, and the encoder token (of the piece) in which each of them begins."""
        import numpy as np

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
        fixed = None if width is None else width * self.per_token
        return {
            f"lexicon{number}": fill([row[:fixed] for row in ids], fixed),
            # pads stand behind every span
            f"lexicon{number}_at": fill([row[:fixed] for row in at], fixed, value=1 << 20),
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
        words_BTE = self.narrow(self.words(ids_BT.long()))
        grid = words_BTE.new_zeros(B, M * J + 1, words_BTE.shape[-1])
        grid = grid.scatter(1, cell_BT[..., None].expand_as(words_BTE), words_BTE)
        return self.map(grid[:, : M * J].reshape(B, M, -1))
