"""A pretrained causal LM read with memory tokens behind the text: their last states become the latents.

ICAE (Ge et al. 2023) and gist tokens (Mu et al. 2023) read in one direction. Published at 16 tokens per latent:
bidirectional memory tokens kept more than causal ones (F1 64.8 against 57.1), and states pooled over spans more still
(71.4), so this is the rival of ``lm`` and not its heir.

Unlike in those papers the number of memory tokens follows the length: M = ceil(n / ratio). They share one learned
embedding and differ by the place of the span that they stand for, so any M works, and one encoder serves all ratios.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from latentwire.encoders.base import EncoderConfig
from latentwire.encoders.byte import sinusoid
from latentwire.encoders.tokens import TokenEncoder
from latentwire.encoders.trunk import embedding_width, load_trunk, read_states
from latentwire.errors import UserError
from latentwire.receivers.attention import route_prefix
from latentwire.types import Latents

PLACES = 64  # sines and cosines that say where a span stands


@EncoderConfig.register_subclass("memory")
@dataclass
class MemoryEncoderConfig(EncoderConfig):
    """init: checkpoint directory or hub id of a causal LM, whose weights the encoder starts from. layers: its first
    ones alone (0: all).

    causal: every token sees only what stands before it, as in ICAE (text and memory tokens see all otherwise). spread:
    a memory token stands at the position of the middle of its span, and not behind the text; it takes up no position
    of the LM's then.
    """

    init: str = ""
    layers: int = 0
    causal: bool = False
    spread: bool = False

    def build(self, assets: Path | None = None) -> MemoryEncoder:
        return MemoryEncoder(self, assets)


class MemoryEncoder(TokenEncoder):
    """Text and memory tokens [B, T + M] → LM → states of the memory tokens → linear → z [B, M, D]."""

    config: MemoryEncoderConfig

    def __init__(self, config: MemoryEncoderConfig, assets: Path | None) -> None:
        super().__init__()
        self.config = config
        where = self._start(config.init, assets and assets / "lm")
        self.begin = () if self.tokenizer.bos_token_id is None else (self.tokenizer.bos_token_id,)
        self.lm = load_trunk(where, weights=False) if assets else load_trunk(where, config.layers)
        most = getattr(self.lm.config.get_text_config(), "max_position_embeddings", None)
        need = len(self.begin) + config.window + (0 if config.spread else -(-config.window // min(config.ratios)))
        if most is not None and need > most:
            raise UserError(
                f"text and memory tokens take {need} positions, {config.init or 'the LM'} has {most}; lower "
                "encoder.window or set encoder.spread"
            )
        width = embedding_width(self.lm)
        self.memory = nn.Parameter(torch.zeros(width))
        self.place = nn.Linear(PLACES, width, bias=False)
        self.out = nn.Linear(self.lm.config.get_text_config().hidden_size, config.d_z)
        if assets is None:
            self._begin_like_words()
        self.stacks = [route_prefix(self.lm)]

    @torch.no_grad()
    def _begin_like_words(self) -> None:
        """Memory tokens begin as the mean word (as gist tokens do), apart from one another by half a word's length."""
        embed = self.lm.get_input_embeddings()
        # not the table itself: Gemma scales what it looks up
        words_VE = embed(torch.arange(len(embed.weight)))  # ty: ignore[invalid-argument-type]
        self.memory.copy_(words_VE.mean(0))
        # PLACES / 2 pairs of sine and cosine have squares that sum to PLACES / 2
        nn.init.normal_(self.place.weight, std=0.5 * float(words_VE.square().mean().sqrt()) / (PLACES / 2) ** 0.5)

    def forward(self, batch: dict[str, Tensor], ratio: int) -> Latents:
        self.check_ratio(ratio)
        ids_BT, count_B = batch["ids"].long(), batch["count"].long()
        B, T = ids_BT.shape
        begin = len(self.begin)
        M = -(-(T - begin) // ratio)
        device = ids_BT.device
        number_M, place_T = torch.arange(M, device=device), torch.arange(T, device=device)
        middle_M = (number_M + 0.5) * ratio
        text_BTE = self.lm.get_input_embeddings()(ids_BT)
        memory_ME = (self.memory + self.place(sinusoid(middle_M, PLACES))).to(text_BTE.dtype)
        # behind the last real token of each row, not behind its padding: latents must not depend on that
        at_BM = begin + count_B[:, None] + number_M
        if self.config.spread:
            at_BM = begin + torch.minimum(middle_M.long(), count_B[:, None] - 1)
        real_BS = torch.cat([place_T < begin + count_B[:, None], number_M < (-(-count_B // ratio))[:, None]], 1)
        sees_BSS = real_BS[:, None].expand(-1, T + M, -1)
        if self.config.causal:
            sees_BSS = sees_BSS.tril()
        states_BSE = read_states(
            self.lm,
            torch.cat([text_BTE, memory_ME.expand(B, -1, -1)], 1),
            sees_BSS,
            torch.cat([place_T.expand(B, -1), at_BM], 1),
        )
        return self.finish(self.out(states_BSE[:, T:]), count_B, ratio)

    def save_assets(self, directory: Path) -> None:
        (directory / "lm").mkdir(parents=True, exist_ok=True)
        self.lm.config.save_pretrained(directory / "lm")
        self.tokenizer.save_pretrained(directory / "lm")
