"""The few sizes of a receiver that adapters and injections need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from latentwire.receivers.families import positions_learned, sliding_windows


@dataclass(frozen=True)
class Geometry:
    """Shape of a frozen LM: L layers, H key/value heads of width K, embedding width E, V words, window in positions.

    ``rope`` says whether keys are rotated by their position (GPT-2 adds positions to its input instead). hidden: width
    of the states between layers (OPT embeds at another). sliding: of each layer how many positions back it sees, itself
    included; 0: all of them.
    """

    layers: int
    kv_heads: int
    head_dim: int
    width: int
    vocab: int
    window: int
    rope: bool
    family: str
    hidden: int = field(default=0, repr=False)
    sliding: tuple[int, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, model: Any) -> Geometry:
        """Geometry of a loaded transformers causal LM. UserError: it is of a kind that cannot be read with."""
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        sliding = sliding_windows(config)
        window = config.max_position_embeddings
        if sliding and min(sliding) > 0:
            # nothing made for one layer is seen by a token further away than that: positions are squeezed into it
            window = min(window, *sliding)
        first = getattr(config, "original_max_position_embeddings", None)
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            # its frequencies change for longer texts, and keys that were read before would stand at the old ones
            window = min(window, rope.get("original_max_position_embeddings") or first or window)
        return cls(
            layers=config.num_hidden_layers,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            # not hidden_size: OPT embeds at another width
            width=model.get_input_embeddings().embedding_dim,
            vocab=model.get_input_embeddings().num_embeddings,
            window=window,
            rope=not positions_learned(model),
            family=config.model_type,
            hidden=config.hidden_size,
            sliding=sliding,
        )

    def shape(self) -> list[tuple[str, Any]]:
        """What a fingerprint holds of it, in order of names."""
        names = ("family", "head_dim", "kv_heads", "layers", "rope", "vocab", "width", "window")
        return [(name, getattr(self, name)) for name in names]
