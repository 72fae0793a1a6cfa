"""One attention function for every family: scaled dot-product attention on top of a constant prefix.

transformers hands each layer's keyword arguments on to its attention function. We use that to give every layer its own
prefix keys and values, without a cache object: nothing is stored, nothing is changed by a forward, so the same prefix
serves many rows, gradients reach it, and one compiled layer serves all layers. A layer with a sliding window gets a
mask of its own in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from latentwire.receivers.kernels import eager, flash, fused
from latentwire.types import LayerBlock

NAME = "latentwire"
"""Under which transformers finds the attention below, by torch's kernels; with ``-`` and their name, by others."""


def prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    prefix_k: Tensor | None = None,
    prefix_v: Tensor | None = None,
    seen: list[tuple[Tensor, Tensor]] | None = None,
    room: tuple[Tensor, Tensor] | None = None,
    place: Tensor | None = None,
    kernel: str = "sdpa",
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend to prefix and own tokens. query [B, heads, T, K]; key, value [B, H, T, K]; prefix [B or 1, H, P, K].

    attention_mask: what :func:`additive` made of bool [B, 1, T, P + T] for this many heads per key. softcap: scores are
    kept within it by a tanh (Gemma 2); no kernel of torch knows that, so they are computed openly. ``seen`` receives
    the joined keys and values, which are the prefix of whatever is read next. ``room``: keys and values of which the
    prefix is the beginning, with space behind it that the new ones are written to: nothing is copied. place: int64 [T],
    where in the room they are written, of which the prefix is all then.
    """
    if room is not None and prefix_k is not None:
        start, end = prefix_k.shape[2], prefix_k.shape[2] + key.shape[2]
        for held, new in zip(room, (key, value), strict=True):
            if place is None:
                held[:, :, start:end] = new
            else:
                held.index_copy_(2, place, new.to(held.dtype))
        key, value = room if place is not None else (room[0][:, :, :end], room[1][:, :, :end])
    elif prefix_k is not None and prefix_v is not None:
        batch = key.shape[0]
        key = torch.cat([prefix_k.expand(batch, -1, -1, -1).to(key.dtype), key], 2)
        value = torch.cat([prefix_v.expand(batch, -1, -1, -1).to(value.dtype), value], 2)
    if seen is not None:
        seen.append((key, value))
    if kernel == "flash_attention_2" and attention_mask is None:
        return flash(query, key, value, scaling, softcap).transpose(1, 2).contiguous(), None
    # heads that share their keys become more rows of one head: no key is repeated, and the kernels that take a mask
    # do not know groups (see `additive`, which repeats the mask, once for all layers)
    B, heads, T, K = query.shape
    query = query.reshape(B, key.shape[1], -1, K)
    if attention_mask is not None:
        attention_mask = attention_mask.to(query.dtype)
    if softcap is None and kernel != "eager":
        out = fused(query, key, value, attention_mask, dropout, scaling)
    else:
        out = eager(query, key, value, attention_mask, dropout, scaling, softcap)
    return out.reshape(B, heads, T, K).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, prefix_attention)
for other in ("eager", "flash_attention_2"):
    AttentionInterface.register(f"{NAME}-{other}", partial(prefix_attention, kernel=other))


class Layers:
    """A decoder's layers, plain or compiled.

    Compiling is of the layers' common forward: one graph serves all layers, because nothing in it depends on the
    layer's number. Compiling a whole model would take minutes; and each new shape costs a graph, so it is switched on
    only around steps of fixed shape.
    """

    def __init__(self, model: nn.Module) -> None:
        self.plain = type(decoder_layers(model)[0]).forward
        self.fast: Any = None
        self.run: Any = self.plain
        self.again = False
        """Keep nothing that a layer works out for the backward pass: work it out again there."""

    def compile(self, on: bool = True) -> None:
        """Use the compiled layer (made at the first call of each shape), or the plain one again."""
        if on and self.fast is None:
            # all families share one forward, and every shape of each of them is a graph of its own
            torch._dynamo.config.recompile_limit = 64  # ty: ignore[invalid-assignment]
            self.fast = torch.compile(self.plain, dynamic=False)
        self.run = self.fast if on else self.plain

    def __call__(self, layer: nn.Module, *args: Any, seen: Any = None, hooked: bool = False, **kwargs: Any) -> Any:
        """What the layer gives. seen: receives its joined keys and values. hooked: accelerate has hooks in it."""

        def work(*args: Any, **kwargs: Any) -> tuple[Any, list[tuple[Tensor, Tensor]]]:
            if seen is None:
                return self.run(layer, *args, **kwargs), []
            # a list made here: the second time around, it would be filled once more
            own: Any = Kept([]) if hooked else []
            out = self.run(layer, *args, seen=own, **kwargs)
            return out, list(own)

        if self.again and torch.is_grad_enabled():
            # dropout must draw the same again; frozen layers draw nothing
            out, own = checkpoint(work, *args, use_reentrant=False, preserve_rng_state=layer.training, **kwargs)
        else:
            out, own = work(*args, **kwargs)
        if seen is not None:
            if not own:
                raise TypeError("its layers have an attention of their own")
            seen.append(own[0])
        return out


class Kept:
    """A list in all but its type: where accelerate has hooks, it copies lists on the way to a module's device."""

    def __init__(self, held: list[tuple[Tensor, Tensor]]) -> None:
        self.held = held

    def append(self, kv: tuple[Tensor, Tensor]) -> None:
        self.held.append(kv)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.held)


def route_prefix(model: nn.Module) -> Layers:
    """Let ``model(..., prefix=[(k, v), ...], seen=[], blocks=(...))`` reach each decoder layer with its own part.

    masks: of each layer the mask that it gets in place of the others', or None. Blocks act on what their layer gives,
    outside of it: a compiled layer is the same with and without them.
    """
    routed = Layers(model)
    for number, layer in enumerate(decoder_layers(model)):

        def forward(
            *args: Any,
            prefix: Any = None,
            seen: Any = None,
            room: Any = None,
            blocks: tuple[LayerBlock, ...] = (),
            masks: Any = None,
            layer: Any = layer,
            number: int = number,
            **kwargs: Any,
        ) -> Any:
            # position_ids are used up before the layers; an unused changing tensor would only be guarded on
            kwargs.pop("position_ids", None)
            if prefix is not None:
                kwargs["prefix_k"], kwargs["prefix_v"] = prefix[number]
            if room is not None:
                kwargs["room"] = room[number]
            if masks is not None and masks[number] is not None:
                kwargs["attention_mask"] = masks[number]
            # accelerate moves what a layer gets to where it is, and brings in weights that lie elsewhere, by a hook
            # around the forward that this one takes the place of
            hook = getattr(layer, "_hf_hook", None)
            if hook is not None:
                args, kwargs = hook.pre_forward(layer, *args, **kwargs)
            out = routed(layer, *args, seen=seen, hooked=hook is not None, **kwargs)
            if hook is not None:
                out = hook.post_forward(layer, out)
            for block in blocks:
                if block.layer == number:
                    out = block(out.to(block.k_BHMK.device)).to(out.device)
            return out

        layer.forward = forward
    return routed


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The list of decoder layers of a bare transformers decoder."""
    for name in ("layers", "h"):
        layers = getattr(model, name, None)
        if isinstance(layers, nn.ModuleList):
            return layers
    raise TypeError(f"{type(model).__name__} keeps its layers under a name that is not known here")


def own_causal(mask_BT: Tensor) -> Tensor:
    """Causal attention among a row's own real tokens. mask_BT bool -> bool [B, T, T]."""
    T = mask_BT.shape[1]
    causal = torch.ones(T, T, dtype=torch.bool, device=mask_BT.device).tril()
    # a padded token must see something, or its softmax is NaN and poisons gradients: let it see itself
    return (causal & mask_BT[:, None, :]) | torch.eye(T, dtype=torch.bool, device=mask_BT.device)


def behind(prefix: Tensor, own: Tensor, place_T: Tensor | None) -> Tensor:
    """What is known of own tokens behind what is known of their prefix, or at ``place_T`` in it (last dimension)."""
    return torch.cat([prefix, own], -1) if place_T is None else prefix.index_copy(-1, place_T, own.to(prefix.dtype))


def with_prefix(own_BTT: Tensor, prefix_mask_BP: Tensor | None, place_T: Tensor | None = None) -> Tensor:
    """Mask [B, 1, T, P + T] of rows that see all of their prefix and what ``own_BTT`` allows of themselves; [B, 1, T,
    P] where they stand at ``place_T`` in a prefix that has room for them."""
    if prefix_mask_BP is None:
        return own_BTT[:, None]
    B = max(own_BTT.shape[0], prefix_mask_BP.shape[0])
    T = own_BTT.shape[1]
    seen = prefix_mask_BP[:, None, :].expand(B, T, -1)
    return behind(seen, own_BTT.expand(B, -1, -1), place_T)[:, None]


def within(
    mask_B1TS: Tensor, positions_BT: Tensor, prefix_at_BM: Tensor | None, width: int, place_T: Tensor | None = None
) -> Tensor:
    """Of a mask, what stands less than ``width`` positions before the token that looks; bool, of the mask's shape.

    By where things stand, not by how many there are: a latent is as far away as the text that it stands for.
    """
    at_BS = positions_BT
    if prefix_at_BM is not None:
        at_BS = behind(prefix_at_BM.expand(len(positions_BT), -1), positions_BT, place_T)
    return mask_B1TS & (at_BS[:, None, None, :] > positions_BT[:, None, :, None] - width)


def additive(mask_B1TS: Tensor, model: Any, dtype: torch.dtype) -> Tensor:
    """A bool mask as the layers of ``model`` add it to their scores: 0 or -inf, [B, 1, groups * T, S].

    groups: query heads that share a key head. Rows begin at multiples of 8 numbers, as the kernel wants them: it would
    copy the mask in every layer otherwise.
    """
    config = model.config.get_text_config()
    groups = config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    S = mask_B1TS.shape[-1]
    hidden = F.pad(~mask_B1TS, (0, -S % 8), value=True)
    added = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))
    return added.repeat(1, 1, groups, 1)[..., :S]
