"""An encoder that does not fit a device beside its optimiser, split over the processes of a run.

Each process keeps an equal share of every weight of the encoder, of its gradient and of its moments (ZeRO stage 3,
Rajbhandari et al. 2020, by torch's FSDP2). A decoder layer is whole on a device only while it computes, and gradients
come out of the backward pass averaged and split. Links stay whole in each process, as they are without.

What the first process does alone (evaluating, saving) must not ask the others for their shares at every layer. For that
it gets a second, plain encoder, which has weights only as long as it is needed: see :meth:`Shards.whole`.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from latentwire.encoders import Encoder
from latentwire.errors import UserError
from latentwire.receivers.attention import decoder_layers
from latentwire.training.together import Together
from latentwire.types import Latents
from latentwire.wire import Wire

log = logging.getLogger(__name__)


def layers_of(encoder: Encoder) -> list[nn.Module]:
    """The decoder layers of all causal LMs in an encoder."""
    found: dict[nn.Module, None] = {}
    for module in encoder.modules():
        if isinstance(module, PreTrainedModel):
            with suppress(TypeError):  # a model of another kind
                found |= dict.fromkeys(decoder_layers(module))
    return list(found)


def check_layers(wire: Wire) -> None:
    """UserError: the encoder has no layers that could be split."""
    if not layers_of(wire.encoder):
        config: Any = wire.settings.encoder
        kind = config.get_choice_name(type(config))
        raise UserError(
            f"shard splits the layers of a causal LM, and an encoder of type {kind!r} has none; leave shard out"
        )


class Shards:
    """The encoder of ``wire``, split if that is ``wanted`` and there are several processes; else every method leaves
    things as they are. Parameters are others afterwards: optimisers are made behind it."""

    def __init__(self, wire: Wire, together: Together, wanted: bool) -> None:
        self.wire, self.together, self.encoder = wire, together, wire.encoder
        self.on = wanted and together.world > 1
        self._plain: Encoder | None = None
        if not self.on:
            if wanted:
                log.warning("shard: there is one process, so the encoder stays whole")
            return
        if together.main:
            with TemporaryDirectory() as assets:
                self.encoder.save_assets(Path(assets))
                with torch.device("meta"):
                    self._plain = wire.settings.encoder.build(Path(assets))
        self._split()

    def _split(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        with suppress(ValueError):  # known already; older versions of torch look for gradients in no other dataclasses
            torch.export.register_dataclass(Latents)
        mesh = init_device_mesh(self.encoder.device.type, (self.together.world,))
        # what stands outside of the layers comes last, in one piece, and is free while receivers compute
        for module in (*layers_of(self.encoder), self.encoder):
            fully_shard(module, mesh=mesh, reshard_after_forward=True)

    @contextmanager
    def whole(self, device: torch.device | str = "cpu") -> Generator[None]:
        """Within it, the first process has a plain, whole encoder in its wire, on ``device``, in place of its share.
        All processes enter it at the same time. It has no gradients, and what it learns is lost."""
        state = self._gathered(device) if self.on else {}
        if self._plain is None:
            yield
            return
        plain = self._plain
        plain.load_state_dict(state, assign=True)
        del state
        for name, buffer in self.encoder.named_buffers():  # also those that no state has
            parent, _, leaf = name.rpartition(".")
            plain.get_submodule(parent)._buffers[leaf] = buffer
        self.wire.encoder = plain.train(self.encoder.training)
        try:
            yield
        finally:
            self.wire.encoder = self.encoder
            plain.to("meta")

    @torch.no_grad()
    def _gathered(self, device: torch.device | str) -> dict[str, Tensor]:
        """The encoder's weights, one after another; in other processes than the first nothing is kept."""
        found = {}
        for name, tensor in self.encoder.state_dict().items():
            full = whole(tensor)
            if self.together.main:
                found[name] = full.to(device)
        return found

    @torch.no_grad()
    def moments(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimiser's state as it would be without shards, on the CPU; all processes ask for it at the same time,
        and the first one gets it."""
        state = optimizer.state_dict()
        if not self.on:
            return state
        found: dict[int, dict[str, Any]] = {}
        for number, own in state["state"].items():
            for key, value in own.items():
                full = whole(value)
                if self.together.main:
                    found.setdefault(number, {})[key] = full.cpu()
        return state | {"state": found}


# -- tensors that may be split ----------------------------------------------------------------------------------------


@torch.no_grad()
def local(x: Tensor) -> Tensor:
    """This process's share of a tensor (the same memory); of one that is not split, the tensor itself."""
    return x.to_local() if isinstance(x, DTensor) else x


def split_as(share: Tensor, like: Tensor) -> Tensor:
    """What is split as ``like`` and has this share here."""
    if not isinstance(like, DTensor):
        return share
    return DTensor.from_local(
        share, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def whole(x: Tensor) -> Tensor:
    """A tensor with the shares of all processes, which all ask for it."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def cut(x: Tensor, like: Tensor | None) -> Tensor:
    """A whole tensor, which all processes have, split as ``like``; nothing is sent."""
    if not isinstance(like, DTensor):
        return x
    return distribute_tensor(x.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
