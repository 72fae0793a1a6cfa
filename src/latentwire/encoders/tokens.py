"""What encoders that read the tokens of a pretrained LM share: texts cut into pieces, and its embeddings as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel

from latentwire.encoders.base import Encoder, Source, cut, fill
from latentwire.encoders.trunk import checkpoint, starting_from
from latentwire.errors import UserError
from latentwire.receivers.tokenizer import load_tokenizer, tokenizer_hash
from latentwire.types import Latents


class TokenEncoder(Encoder):
    """Reads arrays ``ids`` int32 [P, begin + T] and ``count`` int32 [P], the tokens of a piece without ``begin``.

    begin, end: token ids that stand around every piece (an LM expects its BOS in front, BERT more, a table nothing).
    lead: what stands before a text, as it does in a prompt.
    """

    tokenizer: Any
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    lead = " "

    def prepare(self, texts: list[str], width: int | None = None) -> Source:
        spaced = [f"{self.lead}{text}" if text else "" for text in texts]
        tokens = self.tokenizer(spaced, add_special_tokens=False, verbose=False)["input_ids"]
        pieces, owner_P = cut(tokens, self.config.window)
        ids = fill(
            [[*self.begin, *tokens[text][a:b], *self.end] for text, a, b in pieces],
            None if width is None else width + len(self.begin) + len(self.end),
        )
        return Source({"ids": ids, "count": fill([[b - a] for _, a, b in pieces], 1)[:, 0]}, owner_P, len(texts))

    def reads(self) -> dict[str, Any]:
        words = tokenizer_hash(self.tokenizer)
        known = {"type": "tokens", "begin": list(self.begin), "window": self.config.window, "words": words}
        more = {"end": list(self.end), "lead": self.lead, "fixed": getattr(self.config, "fixed", False)}
        # what is as it mostly is goes unsaid: text that was tokenised before there was a choice is still found
        return known | {key: value for key, value in more.items() if value not in ([], " ", False)}

    def finish(self, z_BMD: Tensor, count_B: Tensor, ratio: int, mask_BM: Tensor | None = None) -> Latents:
        """Latents of mean 0 and variance 1 over D; those behind the end of a text are zero. ``count_B`` in tokens.
        mask_BM: which of them are there, where that is not one for every ``ratio`` tokens."""
        if mask_BM is None:
            mask_BM = torch.arange(z_BMD.shape[1], device=z_BMD.device) < (-(-count_B // ratio))[:, None]
        z_BMD = F.layer_norm(z_BMD.float(), z_BMD.shape[-1:]) * mask_BM[..., None]
        return Latents(z_BMD, mask_BM, count_B, torch.full_like(count_B, ratio))

    def _start(self, init: str, assets: Path | None) -> str | Path:
        """Load the tokenizer, and say where the rest comes from: ``assets`` (as saved) or else ``init``."""
        if assets is None and not init:
            raise UserError("encoder.init is empty: name the checkpoint of a causal LM that the encoder starts from")
        found = assets or checkpoint(init)
        with starting_from(found):
            self.tokenizer = load_tokenizer(found)
        return found


def load_words(where: str | Path) -> Tensor:
    """The input embeddings of a checkpoint, float32 [V, E], divided by their standard deviation.

    Families differ in it by two orders of magnitude, and some scale it again behind the table.
    """
    with starting_from(where):
        # the rest of the model is thrown away: it need not be widened to float32 before
        table = AutoModel.from_pretrained(where, dtype="auto").get_input_embeddings().weight
    words_VE = table.detach().float()
    return words_VE / words_VE.std()


def word_table(where: str | Path, assets: Path | None) -> nn.Embedding:
    """:func:`load_words` as a module; from ``assets`` one of the same shape, whose weights are loaded afterwards."""
    if assets:
        return nn.Embedding(*read_shape(assets))  # ty: ignore[invalid-argument-type]
    return nn.Embedding.from_pretrained(load_words(where), freeze=False)


def write_shape(directory: Path, *sizes: int) -> None:
    """Sizes of a table, beside the tokenizer that it belongs to."""
    (directory / "shape").write_text(" ".join(map(str, sizes)))


def read_shape(directory: Path) -> list[int]:
    """What :func:`write_shape` wrote."""
    return [int(size) for size in (directory / "shape").read_text().split()]


def span_means(x_BTC: Tensor, count_B: Tensor, ratio: int) -> Tensor:
    """Means [B, ceil(T / ratio), C] over spans of ``ratio`` tokens; tokens behind the end of a text do not count."""
    B, T, C = x_BTC.shape
    place_T = torch.arange(T, device=x_BTC.device)
    x_BTC = x_BTC * (place_T < count_B[:, None])[..., None]
    spans_BMRC = F.pad(x_BTC, (0, 0, 0, -T % ratio)).reshape(B, -1, ratio, C)
    filled_BM = count_B[:, None] - ratio * torch.arange(spans_BMRC.shape[1], device=x_BTC.device)
    return spans_BMRC.sum(2) / filled_BM.clamp(1, ratio)[..., None]
