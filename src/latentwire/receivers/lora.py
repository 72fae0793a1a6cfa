"""Low-rank additions to a receiver's first layers (LoRA, Hu et al. 2021), through the optional package ``peft``.

The receiver itself stays frozen: what is learnt is ``B A`` beside a linear layer, belongs to a link and is saved with
it. It acts on tokens that are read on top of a prefix made from latents, and on nothing else. The prefix says so
(``Prefix.lora``), as it does for blocks of cross-attention: a text's prefix never does, so neither the teacher nor a
text baseline can meet it, and the head and soft tokens themselves are read by the frozen receiver.

peft puts layers of its own in place of the receiver's. With them off they call the frozen layer and nothing else, to
the bit. Its own switch (``enable_adapters``, ``disable_adapter``) also takes ``requires_grad`` from what is learnt, and
a backward pass behind it would then give no gradient, silently: only the flag it looks at is set here.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from latentwire.errors import UserError

if TYPE_CHECKING:
    from latentwire.receivers.receiver import Receiver

NAME = "link"


@dataclass
class LoRAConfig:
    """layers: the receiver's first so many. rank: of each addition. alpha: it is scaled by alpha / rank. targets: names
    of linear layers in a decoder layer; by default those that peft takes for this family (mostly ``q_proj`` and
    ``v_proj``). rate: its learning rate as a share of the link's."""

    layers: int = 4
    rank: int = 8
    alpha: int = 16
    targets: tuple[str, ...] = ()
    rate: float = 0.1

    def build(self, receiver: Receiver) -> LoRA:
        """Additions that start at zero, put into ``receiver``. UserError: no peft, or nothing that they could stand
        beside."""
        for name in ("layers", "rank", "alpha", "rate"):
            if getattr(self, name) <= 0:
                raise UserError(f"lora.{name} must be above 0, not {getattr(self, name)}; leave lora out to have none")
        return LoRA(self, receiver)


class LoRA(nn.Module):
    """What is learnt: for each layer and target ``a`` [rank, in] and ``b`` [out, rank], float32 whatever the receiver's
    dtype. The very modules that the receiver calls: loading or training them here is all there is to do."""

    def __init__(self, config: LoRAConfig, receiver: Receiver) -> None:
        super().__init__()
        self.config = config
        if receiver.lora.layers:
            raise UserError(f"receiver {receiver.name!r} has LoRA of another link; load it once for each of them")
        found = inject(config, receiver)
        receiver.lora.layers = tuple(found.values())
        self.pairs = nn.ModuleDict(
            {
                # a dot is no part of a module's name
                key.replace(".", "-"): nn.ModuleDict({"a": layer.lora_A[NAME].float(), "b": layer.lora_B[NAME].float()})
                for key, layer in found.items()
            }
        )


class Switch:
    """The additions of one receiver, on for as long as a call of its layers lasts. Off, they cost nothing."""

    def __init__(self) -> None:
        self.layers: tuple[Any, ...] = ()

    @contextmanager
    def set(self, on: bool) -> Generator[None]:
        if not on:  # how they are left
            yield
            return
        try:
            for layer in self.layers:
                layer._disable_adapters = False
            yield
        finally:
            for layer in self.layers:
                layer._disable_adapters = True


def inject(config: LoRAConfig, receiver: Receiver) -> dict[str, Any]:
    """Put peft's layers into the receiver's decoder, switched off; by their names in it."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as FAMILIES
    except ImportError:
        raise UserError("LoRA needs the package peft; install latentwire[lora], or leave lora out") from None
    family, depth = receiver.geometry.family, receiver.geometry.layers
    if config.layers > depth:
        raise UserError(f"lora.layers is {config.layers}, but {receiver.name!r} has {depth} layers")
    targets = config.targets or tuple(FAMILIES.get(family, ()))
    if not targets:
        raise UserError(f"lora.targets is empty and nothing is known for the family {family!r}; name linear layers")
    own = r"(?:layers|h)\.(?P<layer>\d+)\.(?:.*\.)?(?P<name>[^.]+)"
    names = [(match, name) for name, _ in receiver.decoder.named_modules() if (match := re.fullmatch(own, name))]
    chosen = [name for match, name in names if int(match["layer"]) < config.layers and match["name"] in targets]
    lost = sorted(set(targets) - {match["name"] for match, _ in names})
    wrong = [name for name in chosen if not is_linear(receiver.decoder.get_submodule(name))]
    if lost or wrong:
        linear = {m["name"] for m, name in names if is_linear(receiver.decoder.get_submodule(name))}
        bad = lost[0] if lost else wrong[0].rpartition(".")[2]
        raise UserError(
            f"lora.targets names {bad!r}, which is no linear layer of {receiver.name!r} ({family}); "
            f"there are: {', '.join(sorted(linear))}"
        )
    turned = not isinstance(receiver.decoder.get_submodule(chosen[0]), nn.Linear)
    settings = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=chosen, fan_in_fan_out=turned)
    inject_adapter_in_model(settings, receiver.decoder, adapter_name=NAME)
    found = {name: module for name, module in receiver.decoder.named_modules() if isinstance(module, LoraLayer)}
    assert sorted(found) == sorted(chosen)
    for layer in found.values():
        layer._disable_adapters = True
    return found


def is_linear(module: nn.Module) -> bool:
    """Also GPT-2's ``Conv1D``, a linear layer with its weight turned over."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def frozen_weights(model: Any) -> dict[str, Tensor]:
    """Weights of a model under the names they had before peft's layers were put in, without what those add."""
    state = model.state_dict()
    return {name.replace(".base_layer.", "."): x for name, x in state.items() if ".lora_" not in name}
