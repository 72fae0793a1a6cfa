"""The readers' tokenizers lose nothing, and differ in what they are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire.errors import UserError
from latentwire.sandbox import tokenizers

LOADED = {name: tokenizers.load(tokenizers.shipped(name)) for name in ("llama", "qwen2", "gpt2")}


def ids(name, text):
    return LOADED[name](text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", LOADED)
@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
def test_nothing_is_lost(name, text):
    if not any(special in text for special in tokenizers.SPECIAL):
        assert LOADED[name].decode(ids(name, text)) == text


@pytest.mark.parametrize("name", LOADED)
def test_segments_tokenised_apart_join_to_the_text(name):
    parts = ["Context:", " Łódź,\u00a0 in 1989 ", "\nQuestion: Wo?", "\nAnswer:", " 19 89"]
    assert LOADED[name].decode([i for part in parts for i in ids(name, part)]) == "".join(parts)
    assert ids(name, "x") != ids(name, " x")


def test_digits_stand_alone_in_the_main_readers():
    for name, apart in (("llama", True), ("qwen2", True), ("gpt2", False)):
        assert (len(ids(name, " 1066")) == 4) is apart


def test_three_vocabularies():
    assert [len(LOADED[name]) for name in ("llama", "qwen2", "gpt2")] == [12000, 12000, 6000]
    assert {t.pad_token_id for t in LOADED.values()} == {tokenizers.PAD}
    assert {(t.bos_token_id, t.eos_token_id) for t in LOADED.values()} == {(tokenizers.BOS, tokenizers.EOS)}


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_training_makes_a_lossless_one(kind, tmp_path):
    made = tokenizers.train(kind, 320, ["A cat sat on the mat in 1999.\nIt was a cat."] * 20)
    tokenizers.save(made, tmp_path / "tokenizer.json")
    again = tokenizers.load(tmp_path / "tokenizer.json")
    text = "Ünseen 日本 \t text\r\n"
    assert again.decode(again(text, add_special_tokens=False)["input_ids"]) == text


def test_unknown_kind_is_named():
    with pytest.raises(UserError, match="wordpiece"):
        tokenizers.train("wordpiece", 300, [])
