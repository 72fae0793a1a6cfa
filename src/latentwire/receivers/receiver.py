"""A frozen causal LM that reads on top of a prefix. Every quirk of transformers that wires meet is dealt with here."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from latentwire.prompt import Prompt, PromptConfig
from latentwire.receivers.attention import (
    NAME,
    Kept,
    additive,
    decoder_layers,
    own_causal,
    route_prefix,
    with_prefix,
    within,
)
from latentwire.receivers.families import layer_kinds
from latentwire.receivers.geometry import Geometry
from latentwire.receivers.identity import Identity, hashed
from latentwire.receivers.kernels import plain
from latentwire.receivers.lora import Switch, frozen_weights
from latentwire.receivers.recorded import Recorded
from latentwire.types import Prefix


class Receiver:
    """A frozen LM with its tokenizer and layout.

    It is not an ``nn.Module`` on purpose: nothing that owns it can put it into an optimiser or a checkpoint.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        prompt: PromptConfig | None = None,
        attention: str = "sdpa",
        identity: Identity | None = None,
    ) -> None:
        self.name, self.model, self.tokenizer = name, model.eval().requires_grad_(False), tokenizer
        self.geometry = Geometry.of(model)
        self.attention, self.identity = attention, identity
        mine = NAME if attention == "sdpa" else f"{NAME}-{attention}"
        model.config._attn_implementation = model.config.get_text_config()._attn_implementation = mine
        self.decoder = model.get_decoder()
        self.layers = route_prefix(self.decoder)
        self.devices = [device_of(layer) for layer in decoder_layers(self.decoder)]
        self.lora = Switch()
        self.prompt = Prompt(prompt or PromptConfig(), tokenizer)
        self.recorded: Recorded | None = None
        self._head: Prefix | None = None

    def record(self, on: bool = True) -> None:
        """Decode by forward passes that are recorded as CUDA graphs (see ``recorded.py``), or no more; what was
        recorded before is free either way. To be called again once the model was moved or changed."""
        self.recorded = Recorded() if on else None

    @property
    def device(self) -> torch.device:
        """Where ids, masks and positions go, and states and logits come back to; keys and values of each layer are in
        ``devices``."""
        return device_of(self.model.get_input_embeddings())

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Token embeddings [B, T, E] as the receiver's first layer gets them (Gemma scales them inside)."""
        return self.model.get_input_embeddings()(ids_BT)

    def states(
        self,
        ids_BT: Tensor | None = None,
        *,
        embeds_BTE: Tensor | None = None,
        positions_BT: Tensor,
        own_BTT: Tensor,
        prefix: Prefix | None = None,
        seen: list[tuple[Tensor, Tensor]] | None = None,
        room: list[tuple[Tensor, Tensor]] | None = None,
        place_T: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states [B, T, E] of tokens or vectors read on top of ``prefix``.

        positions_BT: int64, where each token stands (never derived from the mask: forward does not, and GPT-2 shows
        it). own_BTT: bool, who sees whom among the rows' own tokens. seen: receives per layer the joined K/V.
        room: per layer K/V that ``prefix`` is the beginning of; new ones are written behind it, or at ``place_T``
        (int64) where the prefix is all of the room.
        """
        if embeds_BTE is not None:
            embeds_BTE = embeds_BTE.to(self.dtype)
        if self.layers.run is self.layers.fast and prefix is not None and prefix.kv[0][0].requires_grad:
            # otherwise the first layer, whose input needs no gradient, would be compiled apart from the others
            embeds_BTE, ids_BT = (self.embed(ids_BT) if embeds_BTE is None else embeds_BTE).requires_grad_(), None  # ty: ignore[invalid-argument-type]
        mask_B1TS = with_prefix(own_BTT, None if prefix is None else prefix.mask_BM, place_T)
        extra: dict[str, Any] = {} if prefix is None else {"prefix": prefix.kv}
        if self.geometry.sliding:
            extra["masks"] = self.sliding_masks(mask_B1TS, positions_BT, prefix, place_T)
        if seen is not None:
            extra["seen"] = Kept(seen)
        if room is not None:
            extra["room"] = room
        if place_T is not None:
            extra["place"] = place_T
        if prefix is not None and prefix.blocks:
            extra["blocks"] = prefix.blocks
        added: Tensor | None = None
        if self.attention != "flash_attention_2" or not plain(own_BTT, None if prefix is None else prefix.mask_BM):
            added = additive(mask_B1TS, self.model, self.dtype)
        with self.lora.set(prefix is not None and prefix.lora):
            out = self.decoder(
                input_ids=ids_BT,
                inputs_embeds=embeds_BTE,
                attention_mask=added,
                position_ids=positions_BT,
                use_cache=False,
                **extra,
            )
        return out.last_hidden_state.to(self.device)

    def sliding_masks(
        self, mask_B1TS: Tensor, positions_BT: Tensor, prefix: Prefix | None, place_T: Tensor | None = None
    ) -> list[Tensor | None]:
        """Of each layer the mask of its sliding window, as it adds it to its scores; None where it sees everything."""
        at_BM = None if prefix is None else prefix.positions_BM
        if prefix is not None and at_BM is None:
            raise ValueError(f"{self.name!r} has a sliding window, so a prefix must say where its slots stand")
        made: dict[int, Tensor | None] = {0: None}
        for width in set(self.geometry.sliding) - {0}:
            made[width] = additive(within(mask_B1TS, positions_BT, at_BM, width, place_T), self.model, self.dtype)
        return [made[width] for width in self.geometry.sliding]

    def read(
        self,
        ids_BT: Tensor | None,
        mask_BT: Tensor,
        prefix: Prefix | None = None,
        *,
        embeds_BTE: Tensor | None = None,
        positions_BT: Tensor | None = None,
    ) -> Prefix:
        """Read tokens (or vectors) causally behind ``prefix``; the result is the longer prefix.

        Pads (``mask_BT`` False) may stand anywhere. positions_BT: where tokens stand; by default consecutive.
        """
        start_B = 0 if prefix is None else prefix.next_B[:, None]
        if positions_BT is None:
            positions_BT = start_B + (mask_BT.long().cumsum(-1) - 1).clamp_min(0)
        seen: list[tuple[Tensor, Tensor]] = []
        self.states(
            ids_BT,
            embeds_BTE=embeds_BTE,
            positions_BT=positions_BT,
            own_BTT=own_causal(mask_BT),
            prefix=prefix,
            seen=seen,
        )
        last_B = torch.where(mask_BT, positions_BT, -1).amax(-1) + 1
        if prefix is None:
            return Prefix(seen, mask_BT, last_B, positions_BM=positions_BT)
        return prefix.grown(seen, mask_BT, torch.maximum(last_B, prefix.next_B.expand_as(last_B)), positions_BT)

    def head(self) -> Prefix:
        """Prefix of the layout's beginning (``<s>Context:``), batch of one; read once and kept."""
        if self._head is None or self._head.mask_BM.device != self.device:
            ids = torch.tensor([self.prompt.head_ids()], device=self.device)
            with torch.no_grad():
                self._head = self.read(ids, torch.ones_like(ids, dtype=torch.bool))
        return self._head

    def head_for(self, batch: int) -> Prefix:
        """The head's prefix for a batch (expanded, not copied)."""
        head = self.head()
        kv = [(k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1)) for k, v in head.kv]
        at_BM = head.positions_BM.expand(batch, -1) if head.positions_BM is not None else None
        return Prefix(kv, head.mask_BM.expand(batch, -1), head.next_B.expand(batch), positions_BM=at_BM)

    def logits(self, h_NE: Tensor) -> Tensor:
        """Float logits [..., V] of hidden states, with the scale and soft-cap that some families have behind the
        head.
        """
        config = self.model.config.get_text_config()
        logits = self.model.get_output_embeddings()(h_NE).float().to(self.device)
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        if scaling := getattr(config, "logits_scaling", None):
            logits = logits / scaling
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits

    def rotate(self, k_BHMK: Tensor, positions_BM: Tensor, layer: int = 0, back: bool = False) -> Tensor:
        """Keys of a layer turned to their positions (float allowed: a slot may stand between two tokens), or ``back``
        from them; identity without RoPE.

        The family's own function turns them: some turn a part of each key alone (NeoX), some pair its numbers
        otherwise.
        """
        if not self.geometry.rope:
            return k_BHMK
        turn = sys.modules[type(self.decoder).__module__].apply_rotary_pos_emb
        # Gemma 3 turns keys of its sliding layers by other angles
        kind = [layer_kinds(self.model.config.get_text_config())[layer]] if self.ropes else []
        with torch.autocast(k_BHMK.device.type, enabled=False):
            cos, sin = (x.to(k_BHMK.device) for x in self.decoder.rotary_emb(k_BHMK.float(), positions_BM, *kind))
            if back:
                # some families lengthen keys as they turn them (YaRN): divide by it twice, once for the turn below
                length = cos.square() + sin.square() if self.stretched(*kind) else 1
                cos, sin = cos / length, -sin / length
            turned, _ = turn(k_BHMK.float(), k_BHMK.float(), cos, sin)
        return turned.to(k_BHMK.dtype)

    def rotate_layers(self, k_BLHMK: Tensor, positions_BM: Tensor) -> Tensor:
        """Keys of all layers, turned to their positions."""
        if not self.ropes:
            return self.rotate(k_BLHMK.flatten(1, 2), positions_BM).reshape(k_BLHMK.shape)
        layers = range(self.geometry.layers)
        return torch.stack([self.rotate(k_BLHMK[:, layer], positions_BM, layer) for layer in layers], 1)

    @property
    def ropes(self) -> bool:
        """Whether layers of different kinds turn keys by different angles."""
        return hasattr(getattr(self.decoder, "rotary_emb", None), "layer_types")

    def stretched(self, kind: str = "") -> bool:
        """Whether keys of layers of a kind are not as long as they were before they were turned."""
        name = f"{kind}_attention_scaling" if kind else "attention_scaling"
        return getattr(self.decoder.rotary_emb, name, 1.0) != 1.0

    def place_embeddings(self, positions_BM: Tensor) -> Tensor:
        """Learned embeddings [B, M, E] of positions; of a place between two tokens, what lies between theirs."""
        weight_TE = learned_positions(self.decoder).to(positions_BM.device)
        below_BM = positions_BM.floor().long().clamp(0, weight_TE.shape[0] - 2)
        part_BM1 = (positions_BM - below_BM)[..., None].clamp(0, 1)
        return torch.lerp(weight_TE[below_BM].float(), weight_TE[below_BM + 1].float(), part_BM1.float())

    @torch.no_grad()
    def key_value_statistics(self, texts: list[str]) -> dict[str, Tensor]:
        """Mean and deviation of keys (before RoPE) and values on plain text, each [L, H, K] float32."""
        ids = self.prompt.context_ids(texts)
        mask_BT, ids_BT = pad(ids, self.prompt.pad_id, self.device)
        head = self.head_for(len(ids))
        read = self.read(ids_BT, mask_BT, head)
        skip = head.mask_BM.shape[1]
        positions_BT = skip + torch.arange(ids_BT.shape[1], device=self.device).expand_as(ids_BT)
        stats: dict[str, list[Tensor]] = {"k_mean": [], "k_std": [], "v_mean": [], "v_std": []}
        for layer, (k_BHTK, v_BHTK) in enumerate(read.kv):
            k_BHTK, v_BHTK = k_BHTK.to(self.device), v_BHTK.to(self.device)
            flat = {
                "k": self.rotate(k_BHTK[:, :, skip:].float(), positions_BT, layer, back=True),
                "v": v_BHTK[:, :, skip:].float(),
            }
            for name, x_BHTK in flat.items():
                x_NHK = x_BHTK.transpose(1, 2)[mask_BT]
                stats[f"{name}_mean"].append(x_NHK.mean(0))
                stats[f"{name}_std"].append(x_NHK.std(0))
        return {name: torch.stack(rows) for name, rows in stats.items()}

    def fingerprint(self) -> str:
        """Sixteen hex digits over shape and weights (as bfloat16: the same for a copy loaded in another precision)."""
        weights = frozen_weights(self.model)
        return hashed(self.geometry, weights) if self.identity is None else self.identity.of(self.geometry, weights)


def device_of(module: Any) -> torch.device:
    """Where a module computes: where its weights are, unless accelerate brings them there."""
    at = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return next(module.parameters()).device if at is None else torch.device(at)


def learned_positions(decoder: Any) -> Tensor:
    """What a decoder with learned positions adds to its input at each of them [window, E]."""
    for name in ("wpe", "embed_positions"):
        if (table := getattr(decoder, name, None)) is not None:
            return table.weight[getattr(table, "offset", 0) :]  # OPT leaves its first rows unused
    raise TypeError(f"{type(decoder).__name__} keeps its learned positions under a name that is not known here")


def pad(
    ids: list[list[int]], pad_id: int, device: Any, left: bool = False, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Ragged ids as ``(mask_BT bool, ids_BT int64)``, padded on one side to the longest or to ``width``."""
    width = width or max(1, max(map(len, ids), default=1))
    ids_BT = torch.full((len(ids), width), pad_id, dtype=torch.long)
    mask_BT = torch.zeros(len(ids), width, dtype=torch.bool)
    for row, tokens in enumerate(ids):
        if tokens:
            place = slice(width - len(tokens), width) if left else slice(0, len(tokens))
            ids_BT[row, place] = torch.tensor(tokens)
            mask_BT[row, place] = True
    return mask_BT.to(device), ids_BT.to(device)
