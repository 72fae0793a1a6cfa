"""A pretrained LM that learns in part: low-rank changes to its linear maps, or none at all in its first layers.

LoRA (Hu et al. 2021): a frozen map x -> W x becomes x -> W x + (alpha / rank) * up(down(x)), and ``up`` starts at zero,
so that an untrained change changes nothing. Our own forty lines instead of a library: the layers stay the LM's own
(every layer is still one compiled function), and a saved wire holds the LM with its changes, loaded strictly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from latentwire.errors import UserError
from latentwire.receivers.attention import decoder_layers


class LowRank(nn.Module):
    """A frozen linear map [..., I] -> [..., O] (``base``) with a low-rank change that learns."""

    def __init__(self, base: nn.Linear | Conv1D, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        inputs, outputs = sizes(base)
        self.down, self.up = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.up.weight)
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x)) * self.scale


def sizes(linear: nn.Linear | Conv1D) -> tuple[int, int]:
    """Inputs and outputs of a linear map (GPT-2's lies the other way round)."""
    inputs, outputs = linear.weight.shape if isinstance(linear, Conv1D) else linear.weight.shape[::-1]
    return inputs, outputs


def linear_maps(lm: PreTrainedModel, skip: int = 0) -> Iterator[tuple[nn.Module, str, nn.Linear | Conv1D]]:
    """``(parent, name, map)`` of every linear map in the LM's layers, but for the first ``skip`` layers."""
    for layer in decoder_layers(lm)[skip:]:
        for parent in list(layer.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear | Conv1D):
                    yield parent, name, child


def adapt(lm: PreTrainedModel, rank: int, alpha: float, names: Sequence[str] = (), skip: int = 0) -> None:
    """Freeze the LM and give its linear maps low-rank changes (all, or those whose last name is in ``names``), but for
    the first ``skip`` layers. UserError: an impossible rank, or a name that no map has.
    """
    found = list(linear_maps(lm, skip))
    known = sorted({name for _, name, _ in found})
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"encoder.lora_on names {unknown[0]!r}; the linear maps here are: {', '.join(known)}")
    chosen = [one for one in found if not names or one[1] in names]
    if not chosen:
        raise UserError("encoder.lora has no layer to change; lower encoder.frozen_layers")
    most = min(min(sizes(linear)) for _, _, linear in chosen)
    if not 0 < rank <= most:
        raise UserError(f"encoder.lora is a rank from 1 to {most} (the smallest width of a map here), not {rank}")
    lm.requires_grad_(False)
    for parent, name, linear in chosen:
        setattr(parent, name, LowRank(linear, rank, alpha))


def freeze_first(lm: PreTrainedModel, layers: int) -> None:
    """The token embeddings (and learned positions) and the first ``layers`` layers stay as they are; 0: all learns."""
    whole = decoder_layers(lm)
    if not 0 <= layers <= len(whole):
        raise UserError(f"encoder.frozen_layers is {layers}, the LM has {len(whole)} layers")
    if not layers:
        return
    for part in (*whole[:layers], *(child for child in lm.children() if isinstance(child, nn.Embedding))):
        part.requires_grad_(False)
