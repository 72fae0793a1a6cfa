"""A frozen sentence encoder: a transformers encoder (BERT and the like) with its own tokenizer, read piece by piece.

It never learns and has no dropout, and a saved wire holds it whole. A text longer than it can read is read in pieces of
nearly equal length, each with the special tokens that the encoder expects; nothing is cut off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from latentwire.encoders.trunk import checkpoint, starting_from
from latentwire.errors import UserError
from latentwire.receivers.tokenizer import load_tokenizer

POOLS = ("mean", "pooler")


class SentenceModel(nn.Module):
    """begin, end: token ids around every piece. room: tokens of a piece that fit between them. width: E of its states.

    where: checkpoint directory or hub id; assets: a directory that :meth:`save_assets` wrote, for one whose weights are
    loaded afterwards. pool: ``mean`` over all tokens (as Sentence-BERT does, Reimers & Gurevych 2019) or the encoder's
    own ``pooler``. UserError: no such checkpoint, no encoder, or weights that it lacks and that would be random.
    """

    def __init__(self, where: str, assets: Path | None, pool: str = "mean") -> None:
        super().__init__()
        if pool not in POOLS:
            raise UserError(f"a sentence encoder's pool is {' or '.join(POOLS)}, not {pool!r}")
        found = assets or checkpoint(where)
        with starting_from(found):
            self.tokenizer = load_tokenizer(found)
            shape = AutoConfig.from_pretrained(found)
            if shape.is_encoder_decoder:
                raise UserError(f"{found} is an encoder with a decoder ({shape.model_type}); give an encoder alone")
            self.model = AutoModel.from_config(shape, dtype=torch.float32) if assets else load_whole(found, pool)
        if pool == "pooler" and getattr(self.model, "pooler", None) is None:
            raise UserError(f"{found} has no pooler ({shape.model_type}); take the pool 'mean'")
        if pool == "mean" and hasattr(self.model, "pooler"):
            setattr(self.model, "pooler", None)  # noqa: B010 - not read, so neither saved nor missed
        self.model.requires_grad_(False).eval()
        self.pool, self.width = pool, int(shape.hidden_size)
        self.begin, self.end = around(self.tokenizer)
        self.room = positions(self.model) - len(self.begin) - len(self.end)

    def train(self, mode: bool = True) -> SentenceModel:
        """Stays as it is, whatever the wire does: a frozen encoder's dropout would only be noise."""
        return super().train(False)

    def check_window(self, window: int, name: str = "encoder.window") -> None:
        """UserError: pieces of ``window`` tokens are longer than it can read."""
        if window > self.room:
            raise UserError(
                f"{name} is {window} tokens, the sentence encoder reads {self.room} at most; lower it (a longer text "
                "is read in several pieces, nothing is cut off)"
            )

    @torch.no_grad()
    def forward(self, ids_BT: Tensor, count_B: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, begin + T + end] with ``count_B`` between their special ones → states [B, T, E] of those, zero
        where there are none, and one vector [B, E] for each piece, of length sqrt(E)."""
        begin, extra = len(self.begin), len(self.begin) + len(self.end)
        place_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        read_BT = place_T < (count_B + extra)[:, None]
        out = self.model(input_ids=ids_BT, attention_mask=read_BT.long())
        states_BTE = out.last_hidden_state.float()
        if self.pool == "mean":
            vector_BE = (states_BTE * read_BT[..., None]).sum(1) / read_BT.sum(1)[:, None]
        else:
            vector_BE = out.pooler_output.float()
        vector_BE = nn.functional.normalize(vector_BE, dim=-1) * self.width**0.5
        T = ids_BT.shape[1] - extra
        own_BTE = states_BTE[:, begin : begin + T]
        return own_BTE * (torch.arange(T, device=ids_BT.device) < count_B[:, None])[..., None], vector_BE

    def save_assets(self, directory: Path) -> None:
        """Write its shape and its tokenizer; its weights are saved with the wire's."""
        directory.mkdir(parents=True, exist_ok=True)
        self.model.config.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)


def load_whole(where: str | Path, pool: str) -> PreTrainedModel:
    """The encoder of a checkpoint, float32. UserError: weights are missing (but for a pooler that is not read)."""
    model, report = AutoModel.from_pretrained(where, dtype=torch.float32, output_loading_info=True)
    missing = [key for key in report["missing_keys"] if pool == "pooler" or not key.startswith("pooler.")]
    if missing:
        raise UserError(f"{where} lacks weights ({', '.join(sorted(missing)[:3])} …); they would have been random")
    return model


def around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids that a tokenizer puts before and behind a text ([CLS] and [SEP] of BERT)."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return tuple(whole[:start]), tuple(whole[start + len(bare) :])
    raise UserError(f"tokenizer {tokenizer.name_or_path!r} changes a text's own tokens where it adds special ones")


def positions(model: PreTrainedModel) -> int:
    """Tokens that an encoder has places for, its special ones included."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding):
        # RoBERTa and its kin count from behind the place of pads
        return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return int(model.config.max_position_embeddings)
