"""The words of a receiver that each latent is nearest to.

A slot that is keys and values has no embedding, but it has a neighbourhood: what the receiver's own tokens give in the
same place. Each token of the vocabulary is read alone behind the head, and its values, layer by layer, are compared
with the slot's by their cosine. Two choices decide whether that finds anything (tried on the shipped wire: does the
nearest token stand in the slot's stretch of the text?):

- **Values, not keys.** Keys say where a token wants to be found, and are alike for tokens of one kind.
- **Each side without its own mean.** Tokens read alone differ from tokens within a text by a large vector that they all
  share. The vocabulary's mean is taken off the vocabulary; off the slots, what lies midway between their own mean and
  that of the tokens of a text (any will do, a read-back serves). With the vocabulary's taken off both, next to nothing
  is found.

The upper half of the layers is used, and the mean of their cosines: in the lower ones made slots are less like a token.
What is found is a neighbourhood and no reading: a slot of several tokens is near to one of them, or to words like it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from latentwire.data.progress import progress
from latentwire.errors import UserError
from latentwire.readback.places import ways
from latentwire.receivers.receiver import pad

if TYPE_CHECKING:
    from latentwire.packets import Packet
    from latentwire.receivers import Receiver
    from latentwire.types import Prefix
    from latentwire.wire import Wire

CHUNK = 1024
"""Tokens of the vocabulary that are read at once."""
SAMPLE = 1024
"""Tokens, evenly over the vocabulary, that its mean is taken from."""


@dataclass(frozen=True)
class LatentWords:
    """One latent as a receiver meets it. latent: its number in the packet. words: the nearest tokens as text, each with
    its cosine, the nearest first. strength: how far its values are from the mean, in units of how far a token's of a
    text are (1: as far; near 0: the receiver is given next to nothing)."""

    latent: int
    words: list[tuple[str, float]]
    strength: float


@torch.no_grad()
def nearest_words(
    wire: Wire, name: str, packet: Packet, text: str, k: int = 5, slots: int | None = None
) -> list[LatentWords]:
    """The ``k`` nearest tokens of receiver ``name`` for each of the packet's latents that it reads.

    text: English, or whatever the receiver reads, for its mean; what was read back from the packet serves. slots: K/V
    positions of a latent, the link's first if None; a latent of several is as near as the nearest of them.
    UserError: the link gives no K/V positions that belong to one latent each.
    """
    receiver, link = wire.get_receiver(name), wire.links[name]
    slots = link.slots(slots)  # ty: ignore[not-callable]
    latents = wire.latents([packet])
    M = len(packet.z_MD)
    number_BMD = torch.arange(M, device=wire.device)[None, :, None].expand_as(latents.z_BMD)
    # numbers in place of values: the encoder says by itself which of the latents this receiver reads
    part = wire.encoder.part(latents.with_z(number_BMD.float()), name)
    prefix = wire.prefix(name, latents, packet.mode, slots)
    head, S = receiver.head().mask_BM.shape[1], part.mask_BM.shape[1] * slots
    each = ways(link, prefix, head, S)  # ty: ignore[invalid-argument-type]
    if not each:
        raise UserError(
            f"the link of {name!r} gives no keys and values of single latents; its latents have no nearest words"
        )
    from_layer = receiver.geometry.layers // 2
    mean_L1W, scale_L = text_values(receiver, text, from_layer)
    slots_LPW = values(prefix, head, from_layer)[:, 0]
    strength_LP = (slots_LPW - mean_L1W).norm(dim=-1) / scale_L[:, None]
    there_P = part.mask_BM[0].repeat_interleave(slots).repeat(each)
    slots_LPW = slots_LPW - (slots_LPW[:, there_P].mean(1, keepdim=True) + mean_L1W) / 2
    by_latent = (each, part.mask_BM.shape[1], slots)
    cosine, token = top_tokens(receiver, F.normalize(slots_LPW, dim=-1), by_latent, 4 * k, from_layer)
    strength_M = strength_LP.mean(0).reshape(by_latent).mean((0, 2))
    kept = part.mask_BM[0].nonzero()[:, 0].tolist()
    return [
        LatentWords(
            int(part.z_BMD[0, place, 0]),
            shown(receiver, token[place].tolist(), cosine[place].tolist(), k),
            float(strength_M[place]),
        )
        for place in kept
    ]


def values(prefix: Prefix, start: int, from_layer: int) -> Tensor:
    """Values behind position ``start``, float [L, B, P, H * K], of the layers from ``from_layer`` on."""
    return torch.stack([v[:, :, start:].float().transpose(1, 2).flatten(2) for _, v in prefix.kv[from_layer:]])


def text_values(receiver: Receiver, text: str, from_layer: int) -> tuple[Tensor, Tensor]:
    """Mean [L, 1, W] of the values of a text's tokens, and how far they are from it on average [L].

    A text beyond the window is read by its beginning: it is the mean that is wanted.
    """
    head = receiver.head()
    start = head.mask_BM.shape[1]
    ids = receiver.prompt.context_ids([text])[0][: receiver.geometry.window - start]
    if not ids:
        raise UserError("there is no text to take the receiver's mean from; give one with at least a word")
    mask_BT, ids_BT = pad([ids], receiver.prompt.pad_id, receiver.device)
    values_LTW = values(receiver.read(ids_BT, mask_BT, head), start, from_layer)[:, 0]
    mean_L1W = values_LTW.mean(1, keepdim=True)
    # one token alone is its own mean; a tiny scale keeps the division finite
    return mean_L1W, (values_LTW - mean_L1W).norm(dim=-1).mean(1).clamp_min(1e-6)


def top_tokens(
    receiver: Receiver, slots_LPW: Tensor, by_latent: tuple[int, int, int], k: int, from_layer: int
) -> tuple[Tensor, Tensor]:
    """Cosines and ids [M, k] of the tokens nearest to slots of unit norm. The vocabulary is never held whole: of each
    part only what is nearer than what was found before is kept."""
    vocab = min(receiver.geometry.vocab, len(receiver.tokenizer))
    every = torch.arange(vocab, device=receiver.device)
    sample = every[:: -(-vocab // SAMPLE)]
    mean_L1W = torch.stack([alone(receiver, ids, from_layer).sum(1) for ids in sample.split(CHUNK)]).sum(0)[:, None]
    mean_L1W = mean_L1W / len(sample)
    k = min(k, vocab)
    M = by_latent[1]
    cosine_MK = torch.full((M, 0), 0.0, device=receiver.device)
    token_MK = torch.full((M, 0), 0, dtype=torch.long, device=receiver.device)
    with progress(f"reading the vocabulary of {receiver.name}", total=vocab) as show:
        for ids in every.split(CHUNK):
            tokens_LNW = F.normalize(alone(receiver, ids, from_layer) - mean_L1W, dim=-1)
            near_PN = torch.einsum("lpw,lnw->pn", slots_LPW, tokens_LNW) / len(slots_LPW)
            near_MN = near_PN.reshape(*by_latent, -1).amax((0, 2))
            cosine_MK = torch.cat([cosine_MK, near_MN], 1)
            token_MK = torch.cat([token_MK, ids.expand(M, -1)], 1)
            cosine_MK, best_MK = cosine_MK.topk(min(k, cosine_MK.shape[1]), -1)
            token_MK = token_MK.gather(1, best_MK)
            show(int(ids[-1]) + 1, f"{int(ids[-1]) + 1:,} of {vocab:,} tokens")
    return cosine_MK, token_MK


def alone(receiver: Receiver, ids_N: Tensor, from_layer: int) -> Tensor:
    """Values [L, N, W] of tokens, each read alone behind the head."""
    head = receiver.head_for(len(ids_N))
    mask_BT = torch.ones(len(ids_N), 1, dtype=torch.bool, device=ids_N.device)
    return values(receiver.read(ids_N[:, None], mask_BT, head), head.mask_BM.shape[1], from_layer)[:, :, 0]


def shown(receiver: Receiver, tokens: list[int], cosines: list[float], k: int) -> list[tuple[str, float]]:
    """The first ``k`` tokens that a person can tell apart: without the space before them, special ones left out."""
    found: dict[str, float] = {}
    special = set(receiver.tokenizer.all_special_ids)
    for token, cosine in zip(tokens, cosines, strict=True):
        text = receiver.tokenizer.decode([token]).strip()
        if token in special or not text:
            continue
        if "\ufffd" in text:  # part of a character: its name in the vocabulary says more
            text = str(receiver.tokenizer.convert_ids_to_tokens(token))
        found.setdefault(text, cosine)
    return list(found.items())[:k]
