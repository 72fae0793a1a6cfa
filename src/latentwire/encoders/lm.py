"""A pretrained causal LM read in both directions, its last states pooled over contiguous spans.

Pooling the states of a pretrained LM keeps more than memory tokens (mean-pooling with distillation; ARC-Encoder), and
slots in proportion to the length keep more than a fixed number. Each span's states stand beside its token embeddings
before they are pooled by one linear layer: the states say what the text means, the embeddings which words it uses.
Spans of the smallest ratio are pooled first; larger ratios join neighbouring ones, so that one encoder serves them all
for few parameters more.

Lexicons: a second reader's tokens of the same span, pooled beside the rest (see ``lexicon.py``). LoRA, and first layers
that do not learn: see ``lora.py``. ``fixed``: as many latents for a short text as for a full window (see ``spans.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentwire.encoders.base import Encoder, EncoderConfig, Source, cut, fill
from latentwire.encoders.lexicon import Lexicon
from latentwire.encoders.lora import adapt, freeze_first
from latentwire.encoders.spans import piece_numbers, quota, stretched
from latentwire.encoders.trunk import checkpoint, embedding_width, load_trunk, read_both_ways, starting_from
from latentwire.errors import UserError
from latentwire.receivers.attention import route_prefix
from latentwire.receivers.tokenizer import load_tokenizer, tokenizer_hash
from latentwire.types import Latents


@EncoderConfig.register_subclass("lm")
@dataclass
class LMEncoderConfig(EncoderConfig):
    """init: checkpoint directory or hub id of a causal LM, whose weights the encoder starts from. layers: its first
    ones alone (0: all).

    pool: ``concat`` (one linear layer over a span's states and embeddings side by side) or ``mean``. lexicons: further
    checkpoints whose tokens of each span are pooled beside it. lexicon_layers: how many of their own layers read
    these tokens first (0: their words alone). per_token: how many of their tokens per encoder token fit into a span.
    word: the width to which each is brought before pooling. stretch: how many of their tokens per encoder token are
    kept where training fixes shapes (``corpus.stretch`` leaves out passages in which a receiver has more: give both the
    same number).

    told: a learned vector for each ratio stands with the LM's token embeddings, so that it reads for the spans it will
    be pooled over. Without it the LM reads alike at every ratio.
    fixed: a text has window / ratio latents whatever its length, one for each of as many equal spans (ratio 8 at a
    window of 256: 32). Takes no lexicons.
    lora: rank of low-rank changes to the LM's linear maps, which are all of the LM that learns then (0: the LM learns
    in full). lora_alpha: they count ``lora_alpha / lora``. lora_on: last names of the maps that get one (``q_proj``,
    ``c_attn`` …; none named: all of them). frozen_layers: the token embeddings and so many of the first layers stay as
    they are, with LoRA or without. Both are of the encoder's own LM; lexicons learn in full.
    """

    init: str = ""
    layers: int = 0
    pool: str = "concat"
    causal: bool = False
    lexicons: list[str] = field(default_factory=list)
    lexicon_layers: int = 0
    per_token: int = 2
    word: int = 160
    stretch: float = 1.25
    fixed: bool = False
    told: bool = False
    lora: int = 0
    lora_alpha: float = 16.0
    lora_on: list[str] = field(default_factory=list)
    frozen_layers: int = 0

    def build(self, assets: Path | None = None) -> LMEncoder:
        if assets is None and not self.init:
            raise UserError("encoder.init is empty: name the checkpoint of a causal LM that the encoder starts from")
        if self.pool not in ("concat", "mean"):
            raise UserError(f"encoder.pool is 'concat' or 'mean', not {self.pool!r}")
        if odd := [ratio for ratio in self.ratios if ratio % min(self.ratios)]:
            raise UserError(f"ratio {odd[0]} is no multiple of the smallest ratio {min(self.ratios)}")
        if self.fixed and self.lexicons:
            raise UserError("encoder.fixed takes no lexicons: their tokens are counted in spans of the ratio")
        if self.fixed and (odd := [ratio for ratio in self.ratios if self.window % ratio]):
            raise UserError(f"encoder.fixed needs a window of whole spans: {self.window} is no multiple of {odd[0]}")
        return LMEncoder(self, assets)


class LMEncoder(Encoder):
    """See the module's docstring. Latents of a span depend on the whole piece, never on its padding."""

    config: LMEncoderConfig

    def __init__(self, config: LMEncoderConfig, assets: Path | None) -> None:
        super().__init__()
        self.config = config
        where = assets / "lm" if assets else checkpoint(config.init)
        with starting_from(where):
            self.tokenizer = load_tokenizer(where)
        self.lm = load_trunk(where, weights=False) if assets else load_trunk(where, config.layers)
        freeze_first(self.lm, config.frozen_layers)
        if config.lora:
            adapt(self.lm, config.lora, config.lora_alpha, config.lora_on, config.frozen_layers)
        width = embedding_width(self.lm)
        self.span = min(config.ratios)
        self.pool = nn.Linear((1 if config.pool == "mean" else self.span) * 2 * width, config.d_z)
        self.joins = nn.ModuleDict(
            {
                str(ratio): nn.Linear(ratio // self.span * config.d_z, config.d_z)
                for ratio in config.ratios
                if ratio > self.span
            }
        )
        lexicons = [
            Lexicon(
                checkpoint(name), assets / f"lexicon{i}" if assets else None, d_z=config.d_z, span=self.span,
                word=config.word, per_token=config.per_token, layers=config.lexicon_layers, stretch=config.stretch,
            )
            for i, name in enumerate(config.lexicons)
        ]  # fmt: skip
        self.lexicons = nn.ModuleList(lexicons)
        self.stacks = [route_prefix(self.lm), *(stack for lexicon in lexicons for stack in lexicon.stacks)]
        self.norm = nn.LayerNorm(config.d_z, elementwise_affine=False)
        names = [str(ratio) for ratio in config.ratios] if config.told else []
        self.tones = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in names})

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
        if self.config.fixed:
            arrays["piece"] = piece_numbers(owner_P)
        for number, lexicon in enumerate(self.lexicons):
            arrays |= lexicon.prepare(number, texts, tokens["offset_mapping"], pieces, width)  # ty: ignore[not-callable]
        return Source(arrays, owner_P, len(texts))

    def reads(self) -> dict[str, Any]:
        tokenizers = [self.tokenizer, *(lexicon.tokenizer for lexicon in self.lexicons)]
        words = [tokenizer_hash(tokenizer) for tokenizer in tokenizers]
        kept = {"window": self.config.window, "stretch": self.config.stretch, "words": words}
        return {"type": "lm", **kept, **({"fixed": True} if self.config.fixed else {})}

    def forward(self, batch: dict[str, Tensor], ratio: int) -> Latents:
        self.check_ratio(ratio)
        ids_BT, count_B = batch["ids"].long(), batch["count"].long()
        begin = 0 if self.tokenizer.bos_token_id is None else 1
        place_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        mask_BT = place_T < (count_B + begin)[:, None]
        tone_E = self.tones[str(ratio)] if self.config.told else None
        both_BTF = read_both_ways(self.lm, ids_BT, mask_BT, self.config.causal, tone_E)[:, begin:]
        # what stands for a token in all that follows: the token, or one of the window's places with equal spans
        place_B = count_B
        if self.config.fixed:
            place_B = ratio * quota(batch["piece"], self.config.window // ratio)[1]
            both_BTF = stretched(both_BTF, count_B, place_B, self.config.window)
        z_BMD = self._pool(both_BTF, place_B)
        for number, lexicon in enumerate(self.lexicons):
            z_BMD = z_BMD + lexicon(batch[f"lexicon{number}"], batch[f"lexicon{number}_at"], z_BMD.shape[1])
        if ratio > self.span:
            many = ratio // self.span
            z_BMD = nn.functional.pad(z_BMD, (0, 0, 0, -z_BMD.shape[1] % many))
            z_BMD = self.joins[str(ratio)](z_BMD.reshape(z_BMD.shape[0], -1, many * z_BMD.shape[-1]))
        mask_BM = torch.arange(z_BMD.shape[1], device=ids_BT.device) < (-(-place_B // ratio))[:, None]
        z_BMD = self.norm(z_BMD.float()) * mask_BM[..., None]
        return Latents(z_BMD, mask_BM, count_B, torch.full_like(count_B, ratio))

    def spelled(self, batch: dict[str, Tensor], ratio: int) -> tuple[Tensor, Tensor] | None:
        if self.config.fixed:
            return None
        begin = 0 if self.tokenizer.bos_token_id is None else 1
        ids_BT = batch["ids"].long()[:, begin:]
        there_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < batch["count"].long()[:, None]
        ids_BT = nn.functional.pad(ids_BT.masked_fill(~there_BT, -1), (0, -ids_BT.shape[1] % ratio), value=-1)
        return ids_BT.unflatten(1, (-1, ratio)), self.lm.get_input_embeddings().weight.detach()  # ty: ignore[not-callable]

    def _pool(self, both_BTF: Tensor, count_B: Tensor) -> Tensor:
        """Spans of the smallest ratio [B, T / span, D]; spans behind the end of a text are zero."""
        B, T, F = both_BTF.shape
        both_BTF = nn.functional.pad(both_BTF, (0, 0, 0, -T % self.span))
        spans_BMRF = both_BTF.reshape(B, -1, self.span, F)
        filled_BM = count_B[:, None] - self.span * torch.arange(spans_BMRF.shape[1], device=count_B.device)
        if self.config.pool == "concat":
            pooled_BMD = self.pool(spans_BMRF.flatten(2))
        else:
            pooled_BMD = self.pool(spans_BMRF.sum(2) / filled_BM.clamp(1, self.span)[..., None])
        return pooled_BMD * (filled_BM > 0)[..., None]

    def save_assets(self, directory: Path) -> None:
        (directory / "lm").mkdir(parents=True, exist_ok=True)
        self.lm.config.save_pretrained(directory / "lm")
        self.tokenizer.save_pretrained(directory / "lm")
        for number, lexicon in enumerate(self.lexicons):
            lexicon.save_assets(directory / f"lexicon{number}")  # ty: ignore[not-callable]
