"""A checkpoint's tokenizer is the one in its ``tokenizer.json``."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from conftest import WORDS
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.receivers.load import load_receiver
from latentwire.receivers.tokenizer import load_tokenizer
from latentwire.weights import unpacked


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_shipped_readers_get_the_tokens_they_were_trained_on(name):
    where = unpacked(name)
    plain = Tokenizer.from_file(str(where / "tokenizer.json"))
    for text in (WORDS, " In 1979, 1,204 of 东京's people (“half”) agreed.\n\n  Naïve?", "x" * 50):
        expected = plain.encode(text, add_special_tokens=False).ids
        assert load_tokenizer(where)(text, add_special_tokens=False)["input_ids"] == expected


def test_transformers_would_put_its_own_rules_in_their_place():
    """The reason for all this; should it fail, ``load_tokenizer`` may become ``AutoTokenizer`` again."""
    where = unpacked("qwen2")
    own: Any = load_tokenizer(where)
    theirs: Any = AutoTokenizer.from_pretrained(where)
    ids = [tokenizer(" In 1979", add_special_tokens=False)["input_ids"] for tokenizer in (own, theirs)]
    assert ids[0] != ids[1]


def test_receivers_and_encoders_open_it_so(tiny_readers):
    expected = Tokenizer.from_file(str(tiny_readers["qwen2"] / "tokenizer.json")).encode(f" {WORDS}").ids
    assert load_receiver(tiny_readers["qwen2"]).prompt.context_ids([WORDS]) == [expected]
    config = LMEncoderConfig(d_z=8, window=4096, init=str(tiny_readers["qwen2"]), lexicons=[str(tiny_readers["qwen2"])])
    encoder = config.build()
    arrays = encoder.prepare([WORDS]).arrays
    assert arrays["ids"][0, -len(expected) :].tolist() == expected
    assert arrays["lexicon0"][0].tolist() == expected


def test_a_checkpoint_without_a_tokenizer_is_one_clear_error(tiny_readers, tmp_path):
    where = tmp_path / "reader"
    shutil.copytree(tiny_readers["llama"], where)
    for path in where.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match="cannot load a receiver"):
        load_receiver(where)
