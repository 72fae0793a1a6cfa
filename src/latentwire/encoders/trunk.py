"""A pretrained causal LM as a reader in both directions: what the `lm` encoder and its lexicons are made of."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel

from latentwire.errors import UserError
from latentwire.receivers.attention import NAME, additive, decoder_layers
from latentwire.shipped import resolve


@contextmanager
def starting_from(where: str | Path) -> Generator[None]:
    """What can be wrong with a checkpoint or its tokenizer, as one line for a person."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(f"cannot start the encoder from {where}: {' '.join(str(error).split())[:300]}") from None


def checkpoint(where: str) -> str | Path:
    """A shipped name (``sandbox:llama``) as its directory; everything else as transformers takes it."""
    return resolve(where) if where.startswith("sandbox:") else where


def load_trunk(where: str | Path, layers: int = 0, *, weights: bool = True) -> PreTrainedModel:
    """The bare decoder of a checkpoint in float32, or of its first ``layers`` layers alone (0: all of them).

    weights: False for one whose weights are loaded afterwards. UserError: no such checkpoint, or too few layers.
    """
    with starting_from(where):
        if weights:
            lm = AutoModel.from_pretrained(where, dtype=torch.float32)
        else:
            lm = AutoModel.from_config(AutoConfig.from_pretrained(where), dtype=torch.float32)
    whole = decoder_layers(lm)
    if not 0 <= layers <= len(whole):
        raise UserError(f"{where} has {len(whole)} layers; the encoder cannot keep {layers} of them")
    if layers:
        del whole[layers:]
        lm.config.num_hidden_layers = layers
        if kinds := getattr(lm.config, "layer_types", None):
            lm.config.layer_types = kinds[:layers]
    lm.config._attn_implementation = NAME
    return lm


def embedding_width(lm: PreTrainedModel) -> int:
    """E of the token embeddings."""
    return lm.get_input_embeddings().embedding_dim  # ty: ignore[invalid-explicit-return]


def read_both_ways(
    lm: PreTrainedModel, ids_BT: Tensor, mask_BT: Tensor, causal: bool = False, tone_E: Tensor | None = None
) -> Tensor:
    """Last states beside token embeddings, [B, T, 2 E], zero where ``mask_BT`` is False. Tokens see the whole text, or
    with ``causal`` what stands before them. tone_E: added to every embedding that the LM reads."""
    place_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    sees_BTT = mask_BT[:, None, :].expand(-1, len(place_T), -1)
    if causal:
        sees_BTT = sees_BTT & (place_T[:, None] >= place_T)
    embeds_BTE = lm.get_input_embeddings()(ids_BT)
    read_BTE = embeds_BTE if tone_E is None else embeds_BTE + tone_E.to(embeds_BTE.dtype)
    states_BTE = read_states(lm, read_BTE, sees_BTT, place_T[None].expand_as(ids_BT))
    return torch.cat([states_BTE, embeds_BTE.to(states_BTE.dtype)], -1) * mask_BT[..., None]


def read_states(lm: PreTrainedModel, embeds_BTE: Tensor, sees_BTT: Tensor, place_BT: Tensor) -> Tensor:
    """Last states [B, T, E] of embeddings at places ``place_BT``; each sees those that ``sees_BTT`` (bool) allows."""
    device = embeds_BTE.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else embeds_BTE.dtype
    return lm(
        inputs_embeds=embeds_BTE,
        attention_mask=additive(sees_BTT[:, None], lm, dtype),
        position_ids=place_BT,
        use_cache=False,
    ).last_hidden_state
