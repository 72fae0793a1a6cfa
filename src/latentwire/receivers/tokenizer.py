"""A checkpoint's tokenizer exactly as its ``tokenizer.json`` says.

``AutoTokenizer`` replaces the splitting rules of some families by its own (every ``qwen2`` checkpoint becomes a
``Qwen2Tokenizer``), so a model trained with another tokenizer would silently be fed tokens it has never seen.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file


def load_tokenizer(where: str | Path) -> Any:
    """The tokenizer at a checkpoint directory or hub id; raises what transformers raises where there is none.

    Checkpoints without ``tokenizer.json`` (older SentencePiece ones) are converted by ``AutoTokenizer``.
    """
    found = cached_file(str(where), "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    kind = AutoTokenizer if found is None else PreTrainedTokenizerFast
    return kind.from_pretrained(where)


def tokenizer_hash(tokenizer: Any) -> str:
    """Twelve hex digits that name a tokenizer: its vocabulary, its rules and the token it begins with."""
    text = f"{tokenizer.backend_tokenizer.to_str()}{tokenizer.bos_token_id}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
