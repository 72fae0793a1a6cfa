"""Teacher forcing: what a receiver holds of tokens that it is given, behind what it has read."""

from __future__ import annotations

import torch
from torch import Tensor

from latentwire.receivers.attention import own_causal
from latentwire.receivers.receiver import Receiver, pad
from latentwire.types import Prefix


def forced(
    receiver: Receiver, prefix: Prefix, last: list[int], answers: list[list[int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Teacher forced: nll of each token of each row's answer, the likeliest token in its place, and which are there,
    all [B, T]. ``last``: the prompt's last token of each row, not yet in ``prefix``.

    An answer that reaches beyond the window is judged up to there.
    """
    room = [receiver.geometry.window - place for place in prefix.next_B.tolist()]
    answers = [answer[: max(most, 1)] for answer, most in zip(answers, room, strict=True)]
    inputs = [[token, *answer[:-1]] for token, answer in zip(last, answers, strict=True)]
    mask_BT, ids_BT = pad(inputs, receiver.prompt.pad_id, receiver.device)
    _, labels_BT = pad(answers, receiver.prompt.pad_id, receiver.device)
    positions_BT = prefix.next_B[:, None] + torch.arange(ids_BT.shape[1], device=receiver.device)
    if not receiver.geometry.rope:
        # learned positions end with the window, and pads stand beyond a row's own end
        positions_BT = positions_BT.clamp_max(receiver.geometry.window - 1)
    h_BTE = receiver.states(ids_BT, positions_BT=positions_BT, own_BTT=own_causal(mask_BT), prefix=prefix)
    logits_NV = receiver.logits(h_BTE[mask_BT])
    nll_BT = h_BTE.new_zeros(mask_BT.shape, dtype=torch.float32)
    nll_BT[mask_BT] = torch.nn.functional.cross_entropy(logits_NV, labels_BT[mask_BT], reduction="none")
    likeliest_BT = torch.zeros_like(ids_BT)
    likeliest_BT[mask_BT] = logits_NV.argmax(-1)
    return nll_BT, likeliest_BT, mask_BT


@torch.no_grad()
def likelihoods(receiver: Receiver, prefix: Prefix, tails: list[list[int]]) -> list[float]:
    """Log-likelihood in nats of each row's tokens behind its prefix, all but the first.

    Of a question this says how well it goes with what was read: query likelihood, as in retrieval (Ponte & Croft 1998),
    with the receiver as the language model.
    """
    nll_BT, _, _ = forced(receiver, prefix, [tail[0] for tail in tails], [tail[1:] or tail[:1] for tail in tails])
    return (-nll_BT.sum(-1)).tolist()
