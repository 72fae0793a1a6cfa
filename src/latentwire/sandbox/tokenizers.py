"""Tokenizers of the sandbox readers: small, lossless, and each of another kind.

All three work on bytes written as printable characters (``ByteLevel``), so any text survives ``decode(encode(text))``
and nothing is ever unknown. Two are BPE and split digits one by one (a number costs the same tokens wherever it
stands, and two readers that both do it spell numbers alike, which a wire between them profits from); the third is a
Unigram model that keeps digits together. None adds a space in front: the layout tokenises its segments apart and puts
the spaces itself (see ``latentwire.prompt``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from latentwire.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

KINDS = ("bpe", "unigram")
SPECIAL = ("<pad>", "<s>", "</s>")
PAD, BOS, EOS = range(3)
# words with their space, digits one by one, punctuation runs, white space
DIGITS_APART = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGITS_TOGETHER = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train(kind: str, vocabulary: int, texts: Iterable[str]) -> Tokenizer:
    """A tokenizer of ``kind`` ("bpe" or "unigram") with ``vocabulary`` entries, fitted to ``texts``."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    shared: dict[str, Any] = {"vocab_size": vocabulary, "special_tokens": list(SPECIAL), "initial_alphabet": alphabet}
    if kind == "bpe":
        tokenizer, pattern = Tokenizer(models.BPE()), DIGITS_APART
        trainer = trainers.BpeTrainer(show_progress=False, min_frequency=2, **shared)
    elif kind == "unigram":
        tokenizer, pattern = Tokenizer(models.Unigram()), DIGITS_TOGETHER
        trainer = trainers.UnigramTrainer(show_progress=False, **shared)
    else:
        raise UserError(f"no kind of tokenizer is called {kind!r}; there are: {', '.join(KINDS)}")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(_pieces(texts), trainer=trainer)
    return tokenizer


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    # trainers count words per piece in parallel: lines are better balanced than whole articles
    for text in texts:
        yield from text.splitlines(keepends=True)


def save(tokenizer: Tokenizer, path: Path) -> None:
    """Write ``tokenizer.json`` without white space (a third of the size of the pretty form)."""
    tree = json.loads(tokenizer.to_str())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def shipped(name: str) -> Path:
    """``tokenizer.json`` of a reader that comes with the package."""
    path = Path(str(resources.files("latentwire.sandbox"))) / "readers" / name / "tokenizer.json"
    if not path.is_file():
        known = ", ".join(sorted(p.parent.name for p in path.parent.parent.glob("*/tokenizer.json")))
        raise UserError(f"no sandbox reader is called {name!r}; there are: {known or 'none'}")
    return path


def load(path: Path) -> PreTrainedTokenizerFast:
    """A ``tokenizer.json`` as transformers wants it, with its beginning, end and padding tokens declared."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        bos_token=SPECIAL[BOS],
        eos_token=SPECIAL[EOS],
        pad_token=SPECIAL[PAD],
        clean_up_tokenization_spaces=False,
    )
