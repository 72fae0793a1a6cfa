"""A model of a family that no test knows, held against itself once it is loaded.

Sixteen tokens are read by transformers' own forward, then by ours in two parts. Where the logits differ, or keys are
not turned as the family turns them, the model is refused: it would have answered, and wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentwire.errors import UserError
from latentwire.receivers.attention import own_causal
from latentwire.receivers.families import refusal
from latentwire.receivers.receiver import Receiver

TOKENS, FIRST, STEP = 16, 9, 7
"""How many are read, how many of them as a prefix, and by how many positions keys are turned."""

FAR = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""How far logits may lie apart, in deviations of what they are."""


def some_ids(model: Any) -> Tensor:
    """Token ids [1, 16], spread over the vocabulary."""
    embeddings = model.get_input_embeddings()
    ids = torch.linspace(0.05, 0.9, TOKENS) * (embeddings.num_embeddings - 1)
    return ids.long()[None].to(embeddings.weight.device)


@torch.no_grad()
def read_plainly(model: Any) -> Tensor:
    """Logits [T, V] of transformers' own forward, of a model that no receiver has been made of yet."""
    return model.eval()(some_ids(model), use_cache=False).logits[0, FIRST:].float()


@torch.no_grad()
def checked(model: Any, make: Callable[[Any], Receiver]) -> Receiver:
    """What ``make`` makes of a model. UserError unless it reads as the model did before."""
    family = model.config.get_text_config().model_type
    try:
        plain_TV = read_plainly(model)
        receiver = make(model)
        apart, turned = compare(receiver, plain_TV)
    except UserError:
        raise
    except Exception as error:  # what a strange model does when it is handed what it does not know has no one name
        raise refusal(family, f"it cannot be read with ({type(error).__name__}: {str(error)[:120]})") from error
    far = FAR.get(receiver.dtype, 0.1)
    if not apart <= far:  # also where it is no number
        raise refusal(family, f"read on top of a prefix its logits are {apart:.2g} deviations from what they should be")
    if not turned <= far:
        raise refusal(family, "its keys are not turned by their positions as it was expected")
    return receiver


def compare(receiver: Receiver, plain_TV: Tensor) -> tuple[float, float]:
    """How far logits lie from ``plain_TV``, and keys from where their positions turn them, each in its deviations."""
    ids = some_ids(receiver.model)
    mask = torch.ones_like(ids, dtype=torch.bool)
    places = torch.arange(TOKENS, device=ids.device)[None]
    prefix = receiver.read(ids[:, :FIRST], mask[:, :FIRST])
    own = own_causal(mask[:, FIRST:])
    h_BTE = receiver.states(ids[:, FIRST:], positions_BT=places[:, FIRST:], own_BTT=own, prefix=prefix)
    logits_TV = receiver.logits(h_BTE)[0]
    apart = float((logits_TV - plain_TV.to(logits_TV)).abs().max() / plain_TV.std().clamp_min(1e-6))
    return apart, _turned(receiver, ids[:, :FIRST], mask[:, :FIRST]) if receiver.geometry.rope else 0.0


def _turned(receiver: Receiver, ids: Tensor, mask: Tensor) -> float:
    """How far keys read at later places lie from those read at earlier ones and turned on, in their deviations."""
    near = torch.arange(ids.shape[1], device=ids.device)[None]
    here, there = (receiver.read(ids, mask, positions_BT=near + step).kv for step in (0, STEP))
    worst = 0.0
    for layer, ((k, _), (moved, _)) in enumerate(zip(here, there, strict=True)):
        k, moved = k.float().to(near.device), moved.float().to(near.device)
        found = receiver.rotate(receiver.rotate(k, near, layer, back=True), near + STEP, layer)
        worst = max(worst, float((found - moved).abs().max() / moved.std().clamp_min(1e-6)))
    return worst
