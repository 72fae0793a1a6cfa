"""How what a link injects lies beside what its receiver knows: the vocabulary's embeddings, a text's, soft tokens; and
layer by layer the keys and values of a text and those that stand for it.

Nothing here says whether answers are right. It says whether slots are of the receiver's kind: a soft token a hundred
times too long, keys of two directions, or values far from all that a text makes, are worth knowing of before a training
is blamed. Keys are compared as they are before RoPE, wherever they stand.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentwire.data.progress import progress
from latentwire.readback.clouds import beside, norms, quantiles, spectrum
from latentwire.readback.places import ways
from latentwire.readback.vocabulary import nearest, vocabulary
from latentwire.receivers.receiver import pad

if TYPE_CHECKING:
    from latentwire.link import Link
    from latentwire.receivers import Receiver
    from latentwire.types import Latents, Prefix
    from latentwire.wire import Wire

BATCH = 16
"""Texts that are read at a time."""
WORDS = 8
"""Tokens that are named, of those that soft tokens are nearest to."""


@dataclass
class Read:
    """What texts gave, in parts of a batch each. ids: of their tokens. soft: soft tokens [N, E], if any. kv: under
    ``(layer, "keys" or "values", "text" or "made")`` vectors [N, H * K]."""

    ids: list[Tensor] = field(default_factory=list)
    soft: list[Tensor] = field(default_factory=list)
    kv: dict[tuple[int, str, str], list[Tensor]] = field(default_factory=dict)


@torch.no_grad()
def diagnose(wire: Wire, name: str, texts: list[str], ratio: int | None = None, slots: int | None = None) -> dict:
    """Figures of receiver ``name`` and its link on these texts, as ``latentwire embeddings --json`` prints them.

    ``embeddings``: ``vocabulary``, ``text`` and, where the link makes some, ``soft tokens``, each with ``n``, ``norm``,
    ``nearest`` (cosine with the nearest token, its own left out), ``rank`` and ``first``. ``layers``: for keys and
    values of each layer ``text`` and ``made`` (``norm``, ``rank``, ``first``), ``apart`` and ``spread``; empty where
    nothing that a link makes is a position. ratio: source tokens per latent. slots: K/V positions for each latent.
    """
    receiver, link = wire.get_receiver(name), wire.links[name]
    slots = link.slots(slots)  # ty: ignore[not-callable]
    read = Read()
    with progress(f"reading with {name}", total=len(texts)) as show:
        for start in range(0, len(texts), BATCH):
            part = texts[start : start + BATCH]
            seen: list[tuple[Tensor, Tensor]] = []
            latents = wire.encode_latents(part, ratio)
            prefix = wire.prefix(name, latents, slots=slots, seen=seen)
            mine = wire.encoder.part(latents, name)
            take_batch(read, receiver, link, part, mine, prefix, seen[0], slots)  # ty: ignore[invalid-argument-type]
            show(start + len(part), f"{start + len(part):,} of {len(texts):,} texts")
    words_VE = vocabulary(receiver)
    ids_N = torch.cat(read.ids)
    found = {
        "vocabulary": {**cloud(words_VE), "nearest": quantiles(others(words_VE, words_VE, None))},
        "text": {**cloud(receiver.embed(ids_N[None])[0].float())},
    }
    # a token counts as often as it occurs, but is looked up once
    kind_N, back_N = ids_N.unique(return_inverse=True)
    found["text"]["nearest"] = quantiles(others(receiver.embed(kind_N[None])[0].float(), words_VE, kind_N)[back_N])
    if read.soft:
        found["soft tokens"] = soft_tokens(receiver, torch.cat(read.soft), words_VE, ids_N)
    return {"receiver": name, "embeddings": found, "layers": layers(read)}


def cloud(vectors_NE: Tensor) -> dict[str, Any]:
    """What is told of any vectors."""
    return {"n": len(vectors_NE), "norm": norms(vectors_NE), **spectrum(vectors_NE)}


def others(vectors_NE: Tensor, words_VE: Tensor, own_N: Tensor | None) -> Tensor:
    """Cosine of each token's embedding with the nearest other token's. own_N: which tokens they are, None for all in
    their order."""
    cosine_N2, ids_N2 = nearest(vectors_NE, words_VE, 2)
    own_N = torch.arange(len(vectors_NE), device=vectors_NE.device) if own_N is None else own_N
    # of two equal embeddings either may come first
    return torch.where(ids_N2[:, 0] == own_N, cosine_N2[:, -1], cosine_N2[:, 0])


def soft_tokens(receiver: Receiver, soft_NE: Tensor, words_VE: Tensor, ids_N: Tensor) -> dict[str, Any]:
    """A cloud with the tokens that most soft tokens are nearest to, each with its share, and the share of soft tokens
    whose nearest token is anywhere in the texts."""
    cosine_N1, word_N1 = nearest(soft_NE, words_VE, 1)
    often = Counter(word_N1[:, 0].tolist())
    names = receiver.tokenizer.convert_ids_to_tokens([word for word, _ in often.most_common(WORDS)])
    return cloud(soft_NE) | {
        "nearest": quantiles(cosine_N1[:, 0]),
        "words": [[name, n / len(soft_NE)] for name, (_, n) in zip(names, often.most_common(WORDS), strict=True)],
        "in_text": float(torch.isin(word_N1[:, 0], ids_N).float().mean()),
    }


def take_batch(
    read: Read,
    receiver: Receiver,
    link: Link,
    texts: list[str],
    latents: Latents,
    prefix: Prefix,
    seen: tuple[Tensor, Tensor],
    slots: int,
) -> None:
    """Add what a batch of texts gave. latents: those that this receiver reads. seen: the link's slots and mask."""
    slots_BSE, mask_BS = seen
    head = receiver.head().mask_BM.shape[1]
    # a text beyond the window is looked at as far as it reaches
    ids = [row[: receiver.geometry.window - head] for row in receiver.prompt.context_ids(texts)]
    mask_BT, ids_BT = pad(ids, receiver.prompt.pad_id, receiver.device)
    read.ids.append(ids_BT[mask_BT])
    if link.injection.reads:
        read.soft.append(link.injection.vectors(slots_BSE)[mask_BS].float())
    made_BP = prefix.mask_BM[:, head:]
    if not made_BP.shape[1]:
        return
    text = receiver.read(ids_BT, mask_BT, receiver.head_for(len(texts)))
    places_BT = head + torch.arange(ids_BT.shape[1], device=receiver.device).expand_as(ids_BT)
    even_BT = evenly(mask_BT, made_BP.sum(-1))
    sides = {
        "text": (text, places_BT, even_BT),
        "made": (prefix, made_places(link, receiver, latents, prefix, head, slots), made_BP),
    }
    for side, (of, places_BP, there_BP) in sides.items():
        for layer, (k_BHMK, v_BHMK) in enumerate(of.kv):
            k_BHPK = receiver.rotate(k_BHMK[:, :, head:].float(), places_BP, layer, back=True)
            for kind, x_BHPK in (("keys", k_BHPK), ("values", v_BHMK[:, :, head:].float())):
                rows = x_BHPK.transpose(1, 2).flatten(2)[there_BP]
                read.kv.setdefault((layer, kind, side), []).append(rows)


def made_places(link: Link, receiver: Receiver, latents: Latents, prefix: Prefix, head: int, slots: int) -> Tensor:
    """Where made positions stand [B, P], in the receiver's count."""
    places_BS, next_B = link.place([latents], receiver, slots)
    P = prefix.mask_BM.shape[1] - head
    if each := ways(link, prefix, head, places_BS.shape[1]):
        groups = [places_BS] * each
        if link.injection.reads:
            groups[0] = places_BS.round()  # soft tokens stand at whole positions, as tokens do
        return torch.cat(groups, 1)
    # of the text as a whole: spread evenly over it
    index_P = torch.arange(P, device=places_BS.device)
    return (head + (index_P + 0.5) * ((next_B - head) / P)[:, None] - 0.5).clamp_min(0)


def evenly(mask_BT: Tensor, count_B: Tensor) -> Tensor:
    """Of each row's tokens ``count`` that are spread evenly, or all: clouds of unlike size have unlike spectra."""
    place_BT = mask_BT.cumsum(-1) - 1
    length_B1 = mask_BT.sum(-1, keepdim=True)
    count_B1 = count_B[:, None].minimum(length_B1)
    step_BT = (place_BT + 1) * count_B1 // length_B1 - place_BT * count_B1 // length_B1
    return mask_BT & (step_BT > 0)


def layers(read: Read) -> list[dict[str, Any]]:
    """For each layer its keys and values, those of the text and those that were made."""
    found = []
    for layer in sorted({layer for layer, _, _ in read.kv}):
        row: dict[str, Any] = {"layer": layer}
        for kind in ("keys", "values"):
            text_NW, made_NW = (torch.cat(read.kv[layer, kind, side]) for side in ("text", "made"))
            row[kind] = {"text": cloud(text_NW), "made": cloud(made_NW), **beside(made_NW, text_NW)}
        found.append(row)
    return found
