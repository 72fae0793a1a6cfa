"""kvpress (github.com/NVIDIA/kvpress): K/V of the read context are thrown out until as many are left as are asked for.

The press sees head and context, as in the package's own pipeline; the question comes afterwards and stands where it
would stand behind the whole text. Head and context are pressed together, to the positions of the head and those that
the latents take. A press whose heads or layers keep different numbers (AdaKV, KVzip, PyramidKV) is given that number on
average.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from presses import PRESSES
from reader import Item, Reader, work

SPARE = 1e-6
"""Of a position: the share a press is told is rounded down, and must not fall below what is meant."""


def build(spec: tuple[str, dict[str, Any]]) -> Any:
    """A press of what ``presses.py`` says of it."""
    import kvpress  # ty: ignore[import-not-found]

    name, settings = spec
    made = {key: build(value) if key == "press" else value for key, value in settings.items()}
    return getattr(kvpress, name)(**made)


def held(model: Any, cache: Any) -> float:
    """Positions that a layer's head holds on average."""
    heads, pairs = model.config.num_key_value_heads, 0
    for layer, module in zip(cache.layers, (layer.self_attn for layer in model.model.layers), strict=True):
        hidden = getattr(module, "masked_key_indices", None)
        pairs += heads * layer.keys.shape[2] - (0 if hidden is None else len(hidden[0]))
    return pairs / heads / len(cache.layers)


def make(job: dict[str, Any], reader: Reader) -> Callable[[str, Item, int], dict[str, Any]]:
    """What answers an item through a press."""
    logging.disable(logging.WARNING)  # KVzip says at every text that it is slow
    from kvpress import KVgradPress, KVzipPress, ObservedAttentionPress  # ty: ignore[import-not-found]

    def answer(method: str, item: Item, keep: int) -> dict[str, Any]:
        ids = item["head"] + item["context"]
        wanted = len(item["head"]) + keep
        press = build(PRESSES[method.removeprefix("kvpress ")])
        # KVzip counts what is thrown out, the others what is kept
        spare = -SPARE if isinstance(press, KVzipPress) else SPARE
        press.compression_ratio = 1 - (wanted + spare) / len(ids)
        if keep >= len(item["context"]):
            return reader.answer_text(item, item["context"])
        # a press that reads attention's weights gets them only from the plain implementation
        plain = isinstance(press, ObservedAttentionPress)
        reader.model.set_attn_implementation("eager" if plain else "sdpa")
        # KVzip reads again after the block: without this it would keep gigabytes for gradients that nobody asks for
        with torch.set_grad_enabled(isinstance(press, KVgradPress)), press(reader.model):
            cache = reader.read(ids)
        found = held(reader.model, cache)
        if abs(found - wanted) > 0.5:
            raise ValueError(f"it kept {found:.1f} positions, not {wanted}")
        return {"prediction": reader.answer(cache, len(ids), item["tail"]), "positions": found - len(item["head"])}

    return answer


if __name__ == "__main__":
    work(make)
