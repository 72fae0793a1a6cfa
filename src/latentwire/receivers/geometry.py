"""The few sizes of a receiver that adapters and injections need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Geometry:
    """Shape of a frozen LM: L layers, H key/value heads of width K, embedding width E, V words, window in positions.

    ``rope`` says whether keys are rotated by their position (GPT-2 adds positions to its input instead).
    """

    layers: int
    kv_heads: int
    head_dim: int
    width: int
    vocab: int
    window: int
    rope: bool
    family: str

    @classmethod
    def of(cls, model: Any) -> Geometry:
        """Geometry of a loaded transformers causal LM."""
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        # a sliding window is respected by never reaching past it: positions are squeezed into the smaller of the two
        window = min(config.max_position_embeddings, getattr(config, "sliding_window", None) or 1 << 30)
        return cls(
            layers=config.num_hidden_layers,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            # not hidden_size: OPT embeds at another width
            width=model.get_input_embeddings().embedding_dim,
            vocab=model.get_input_embeddings().num_embeddings,
            window=window,
            rope=hasattr(model.get_decoder(), "rotary_emb"),
            family=config.model_type,
        )
