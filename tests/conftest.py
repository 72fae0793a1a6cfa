"""Small random readers of four families with tokenizers made on the spot, and an untrained wire between two of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = (
    "The Norwegian expedition to the South Pole was led by Roald Amundsen. He and four others arrived at the pole on "
    "14 December 1911, five weeks before a British party led by Robert Falcon Scott. Question: Who led the expedition? "
    "Answer: Roald Amundsen. Context: The city has 1,204 inhabitants. When did they arrive? How many people live there?"
)
# several workers with several threads each wait for one another far longer than they compute
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for commands that tests start

FAMILIES = ("llama", "qwen2", "gpt2", "gemma")
WINDOW = {"llama": 320, "qwen2": 320, "gpt2": 224, "gemma": 320}


def tiny_tokenizer(vocabulary: int, digits: bool):
    """Byte-level BPE of ``vocabulary`` tokens. digits: each digit is a token of its own."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    steps = [pre_tokenizers.Split(Regex(r"\d"), "isolated")] if digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([WORDS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def tiny_model(family: str, vocabulary: int):
    """A random causal LM of that family: two layers, four heads, two K/V heads (GPT-2: four)."""
    import transformers as t

    common = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    # a wide start: answers should depend on what was read
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": WINDOW[family],
             "initializer_range": 0.3, **common}  # fmt: skip
    torch.manual_seed(FAMILIES.index(family))
    if family == "gpt2":
        config = t.GPT2Config(
            n_positions=WINDOW[family], n_embd=32, n_layer=2, n_head=4, initializer_range=0.3, **common
        )
        return t.GPT2LMHeadModel(config)
    kinds = {
        "llama": (t.LlamaConfig, t.LlamaForCausalLM),
        "qwen2": (t.Qwen2Config, t.Qwen2ForCausalLM),
        "gemma": (t.GemmaConfig, t.GemmaForCausalLM),
    }
    if family == "qwen2":
        del shape["head_dim"]
    config, model = kinds[family]
    return model(config(**shape))


def tiny_bert(folder: Path, **shape) -> Path:
    """A random BERT with a WordPiece tokenizer, both made on the spot; it reads 96 tokens unless ``shape`` says
    otherwise. Returns its directory."""
    from tokenizers import normalizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([WORDS, "0 1 2 3 4 5 6 7 8 9 ! letter went to Oslo"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # as files of real sentence encoders do, which would cut and pad if they were asked
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(7)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    wide = {"initializer_range": 0.3, "max_position_embeddings": 96, "vocab_size": tokenizer.get_vocab_size()}
    BertModel(BertConfig(**{**sizes, **wide, **shape})).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_readers(tmp_path_factory) -> dict[str, Path]:
    """Checkpoint directories of small random readers by family: ``llama``, ``qwen2``, ``gpt2``, ``gemma``. Beside them
    ``bert``, a sentence encoder."""
    root = tmp_path_factory.mktemp("readers")
    found = {}
    for number, family in enumerate(FAMILIES):
        tokenizer = tiny_tokenizer(320 + 20 * number, digits=family == "qwen2")
        tokenizer.save_pretrained(root / family)
        # transformers gives the tokenizer of a qwen2 a pad token of its own: real checkpoints have spare rows too
        tiny_model(family, len(tokenizer) + 4).save_pretrained(root / family)
        found[family] = root / family
    found["bert"] = tiny_bert(root / "bert")
    return found


@pytest.fixture(scope="session")
def long_bert(tmp_path_factory) -> Path:
    """A :func:`tiny_bert` that reads 320 tokens."""
    return tiny_bert(tmp_path_factory.mktemp("bert"), max_position_embeddings=320)


@pytest.fixture(scope="session")
def tiny_wire(tiny_readers):
    """An untrained wire to the ``llama`` and ``qwen2`` of :func:`tiny_readers`: d_z 32, ratios 4 and 8. Not to be
    changed by a test."""
    from latentwire.encoders.lm import LMEncoderConfig
    from latentwire.link import LinkConfig
    from latentwire.wire import Wire, WireConfig

    torch.manual_seed(0)
    links = {name: LinkConfig(receiver=str(tiny_readers[name])) for name in ("llama", "qwen2")}
    encoder = LMEncoderConfig(d_z=32, ratios=(4, 8), window=64, init=str(tiny_readers["llama"]))
    return Wire.create(WireConfig(encoder, links), [WORDS, WORDS[:100]]).eval()


@pytest.fixture(scope="session")
def coded_wire(tiny_wire):
    """An untrained wire to ``llama`` with three books of 16 vectors that were drawn. Not to be changed by a test."""
    from latentwire.codecs.residual import ResidualConfig
    from latentwire.wire import Wire, WireConfig

    old = tiny_wire.settings
    links = {"llama": old.links["llama"]}
    torch.manual_seed(0)
    wire = Wire.create(WireConfig(old.encoder, links, ResidualConfig(stages=3, size=16)), [WORDS, WORDS[:100]]).eval()
    wire.books.get_buffer("books").normal_()
    wire.books.get_buffer("use").fill_(1.0)
    return wire


def pytest_collection_modifyitems(items) -> None:
    """Long tests first: one that begins last leaves the other workers nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
