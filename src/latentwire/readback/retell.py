"""How well a receiver reads a text back from its packet, word by word: a warning, before anything is asked.

The sender has the text and the wire, so it can see what will be missing. Each token of the text is predicted from the
latents and the few tokens before it, in the windows that recall is trained on; nothing is decoded, so a text costs one
forward pass of its rows. How the figure goes with what answers lose is measured in docs/results.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentwire.data.progress import progress
from latentwire.errors import UserError
from latentwire.receivers.receiver import pad
from latentwire.receivers.rows import row_states

if TYPE_CHECKING:
    from latentwire.packets import Packet
    from latentwire.receivers import Receiver
    from latentwire.types import Prefix
    from latentwire.wire import Wire

CUE, ROW = 4, 60
"""Tokens that a window is given, and tokens of a window with its line break, as in training (`recall`)."""


@dataclass(frozen=True)
class Retold:
    """What is read back of one text. right: share of its tokens in [0, 1] that the receiver finds likeliest, each told
    those just before it. likelihood: geometric mean of their probabilities, in (0, 1]. tokens: how many were judged."""

    right: float
    likelihood: float
    tokens: int


@torch.no_grad()
def retell(
    wire: Wire, name: str, packets: list[Packet], texts: list[str], slots: int | None = None, batch_size: int = 32
) -> list[Retold]:
    """How well receiver ``name`` reads each of ``texts`` back from the packet that was made of it.

    slots: K/V positions of a latent, the link's first if None. UserError: not a text for each packet, packets of
    prompt mode, packets of another encoder, or a text too short to leave a token behind its cue.
    """
    if len(packets) != len(texts):
        raise UserError(f"{len(packets)} packets but {len(texts)} texts; give the text of each packet")
    if any(packet.mode != "context" for packet in packets):
        raise UserError("a packet of prompt mode holds a question too; what is read back is measured in context mode")
    receiver = wire.get_receiver(name)
    ids = receiver.prompt.context_ids(texts)
    if short := [number for number, row in enumerate(ids) if len(row) <= CUE]:
        raise UserError(f"text {short[0]} has {len(ids[short[0]])} tokens; {CUE + 1} are needed to read any back")
    # texts of like length together: no row is computed that nobody judges
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    found: dict[int, Retold] = {}
    with progress(f"reading back with {name}", total=len(ids)) as show:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            prefix = wire.prefix(name, wire.latents([packets[i] for i in batch]), "context", slots)
            judged = _judge(receiver, prefix, [ids[i] for i in batch])
            found |= dict(zip(batch, judged, strict=True))
            show(len(found), f"{len(found)} of {len(ids)} texts")
    return [found[number] for number in range(len(ids))]


def _judge(receiver: Receiver, prefix: Prefix, ids: list[list[int]]) -> list[Retold]:
    newline = receiver.prompt.ids(["\n"])[0][-1]
    rows_BRT, judged_BRT = _rows(ids, newline, receiver.prompt.pad_id, receiver.device)
    h_NE = row_states(receiver, prefix, rows_BRT)[:, :, :-1][judged_BRT[:, :, 1:]]
    log_NV = receiver.logits(h_NE).log_softmax(-1)
    label_N = rows_BRT[judged_BRT]
    right_N = (log_NV.argmax(-1) == label_N).float()
    own_N = log_NV.gather(1, label_N[:, None])[:, 0]
    which_N = judged_BRT.nonzero()[:, 0]
    sums_B2 = torch.zeros(len(ids), 2, device=receiver.device)
    sums_B2.index_add_(0, which_N, torch.stack([right_N, own_N.float()], 1))
    counts = judged_BRT.sum((1, 2)).tolist()
    return [Retold(right / n, math.exp(log / n), n) for (right, log), n in zip(sums_B2.tolist(), counts, strict=True)]


def _rows(ids: list[list[int]], newline: int, pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows [B, R, ROW] that cover each text once, "line break, cue, what follows", and which of their tokens are judged
    (bool, the same shape): every token of a text but its first ``CUE``."""
    mask_BT, ids_BT = pad(ids, pad_id, device)
    follows = ROW - 1 - CUE
    R = max(1, -(-(ids_BT.shape[1] - CUE) // follows))
    index_RT = torch.arange(R, device=device)[:, None] * follows + torch.arange(ROW - 1, device=device)
    inside_RT = index_RT < ids_BT.shape[1]
    index_RT = index_RT.clamp_max(ids_BT.shape[1] - 1)
    judged_BRT = mask_BT[:, index_RT] & inside_RT & (torch.arange(ROW - 1, device=device) >= CUE)
    first_BR1 = torch.zeros_like(judged_BRT[..., :1])
    newline_BR1 = torch.full_like(ids_BT[:, :1, None].expand(-1, R, -1), newline)
    return torch.cat([newline_BR1, ids_BT[:, index_RT]], 2), torch.cat([first_BR1, judged_BRT], 2)
