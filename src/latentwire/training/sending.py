"""What is sent to a receiver in a step, and what objectives of role ``passage`` say of it; they look at no rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentwire.codecs import by_bits
from latentwire.errors import UserError
from latentwire.objectives import Objective
from latentwire.objectives.base import Sent
from latentwire.types import Latents
from latentwire.wire import Wire


def sent(wire: Wire, latents: Latents, codes: int | None, bits: int | None = None) -> tuple[Latents, Tensor | None]:
    """The latents as they are; or what so many learned codes leave of them, with the commitment [] to these; or what a
    packet of so many bits a value leaves. The latents get the gradient of what is read, as if it were themselves.
    UserError: the wire has no codes, or not so many; there is no codec of these bits."""
    if bits is not None:
        z_BMD = latents.z_BMD
        with torch.no_grad(), torch.autocast(z_BMD.device.type, enabled=False):
            change_BMD = by_bits(bits).fake_quantise(z_BMD.float()).to(z_BMD.dtype) - z_BMD
        return latents.with_z(z_BMD + change_BMD), None
    if codes is None:
        return latents, None
    z_BMD, far = wire.books(latents.z_BMD, latents.mask_BM, codes)
    return latents.with_z(z_BMD), far


def among(latents: Latents, documents: int) -> list[Latents]:
    """Packets that are read one behind the other: of row b its own at place b % ``documents``, and its neighbours in
    the batch at the others. UserError: there are fewer rows than that."""
    if documents == 1:
        return [latents]
    B = len(latents.mask_BM)
    if documents > B:
        raise UserError(f"{documents} documents need as many passages in a step, and there are {B}")
    row_B = torch.arange(B, device=latents.z_BMD.device)
    return [latents.take((row_B + place - row_B % documents) % B) for place in range(documents)]


def sent_losses(
    wire: Wire,
    name: str,
    latents: Latents,
    slots: tuple[Tensor, Tensor],
    read: dict[str, Tensor],
    asked: dict[str, tuple[Objective, Tensor, nn.Module | None]],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted loss [] of receiver ``name``, and the figures to log.

    slots: the link's [B, S, E] and their mask [B, S]. read: the receiver's ``context`` [B, T] and ``count`` [B].
    asked: by name, each objective with its weight [] and what it trains beside the link (None: nothing).
    UserError: an objective compares passages, and there are too few.
    """
    link, receiver = wire.links[name], wire.get_receiver(name)
    loss = torch.zeros((), device=latents.z_BMD.device)
    parts: dict[str, Tensor] = {}
    # distances and covariances of a few vectors: worth their full precision
    with torch.autocast(loss.device.type, enabled=False):
        vectors = link.injection.vectors(slots[0].float())  # ty: ignore[not-callable]
        sent = Sent(latents, vectors, slots[1], read["context"], read["count"], receiver, link)
        for key, (objective, weight, own) in asked.items():
            each, figures = objective.passage(sent, own)
            loss = loss + weight * each
            parts[key] = each.detach()
            parts |= {f"{key}/{label}": value for label, value in figures.items()}
    return loss, parts
