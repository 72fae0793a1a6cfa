"""What injections share that make keys and values themselves: the receiver's own statistics, and its positions.

Made keys and values leave a linear layer near unit scale. Here they get the mean and the deviation that the receiver's
own have on plain text, each head of each layer its own, and keys are turned to the places where the receiver expects
them: it meets keys of the kind it knows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentwire.errors import UserError
from latentwire.injections.base import Injection
from latentwire.receivers import Geometry, Receiver
from latentwire.types import Prefix


def own_width(width: int, geometry: Geometry) -> int:
    """How wide a slot is whose injection was told ``width``; 0: as wide as the receiver. UserError: it is negative."""
    if width < 0:
        raise UserError(f"injection.width is a number of channels, or 0 for the receiver's own, not {width}")
    return width or geometry.width


class Stand(nn.Module):
    """Where slots stand, for a receiver that learned its positions: its own embedding of them, onto the slots.

    RoPE turns a key to its place, whatever the key holds. A receiver with learned positions has the place among what
    its keys are made from: in the lower layers of the sandbox's `gpt2` more than half of what keys differ in is where
    they stand. Slots [B, S, W] at places [B, S] → slots.
    """

    def __init__(self, geometry: Geometry, width: int) -> None:
        super().__init__()
        self.onto = nn.Linear(geometry.hidden, width, bias=False)

    def forward(self, slots_BSW: Tensor, positions_BS: Tensor, receiver: Receiver) -> Tensor:
        place_BSE = receiver.place_embeddings(positions_BS).to(slots_BSW.dtype)
        return slots_BSW + self.onto(nn.functional.layer_norm(place_BSE, place_BSE.shape[-1:]))


class MadeKV(Injection):
    """Keys and values of unit scale → a prefix. Statistics are buffers [L, H, K], so a wire carries them."""

    k_mean: Tensor
    k_std: Tensor
    v_mean: Tensor
    v_std: Tensor

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        shape = (geometry.layers, geometry.kv_heads, geometry.head_dim)
        for name in ("k_mean", "v_mean"):
            self.register_buffer(name, torch.zeros(shape))
        for name in ("k_std", "v_std"):
            self.register_buffer(name, torch.ones(shape))

    def calibrate(self, receiver: Receiver, texts: list[str]) -> None:
        for name, value in receiver.key_value_statistics(texts).items():
            getattr(self, name).copy_(value)

    def placed(
        self, k: Tensor, v: Tensor, mask_BS: Tensor, positions_BS: Tensor, next_B: Tensor, receiver: Receiver
    ) -> Prefix:
        """A prefix of S positions, without the head, from keys and values [B, L, H, S, K] of unit scale."""
        k = k.float() * (self.k_std[:, :, None] * self.strength) + self.k_mean[:, :, None]
        v = v.float() * (self.v_std[:, :, None] * self.strength) + self.v_mean[:, :, None]
        k = receiver.rotate_layers(k, positions_BS)
        k, v = k.to(receiver.dtype), v.to(receiver.dtype)
        # a receiver may be spread over several devices
        kv = [
            (k_BHMK.to(at), v_BHMK.to(at))
            for k_BHMK, v_BHMK, at in zip(k.unbind(1), v.unbind(1), receiver.devices, strict=True)
        ]
        return Prefix(kv, mask_BS, next_B, positions_BM=positions_BS)
