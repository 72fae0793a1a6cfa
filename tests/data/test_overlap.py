"""Passages are found in texts, whatever stands around and between their words."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from latentwire.data import overlap
from latentwire.data.overlap import Overlap

words = st.lists(st.sampled_from(list("abcdefghijklmn")), max_size=30)


def grams(text):
    found = text.lower().split()
    return {tuple(found[i : i + 8]) for i in range(len(found) - 7)}


@given(st.lists(words, max_size=4), words)
def test_as_by_the_definition(passages, text):
    passages, text = [" ".join(p) for p in passages], " ".join(text)
    by_hand = any(len(grams(p) & grams(text)) > len(grams(p)) / 2 for p in passages)
    assert Overlap(passages).within(text) == by_hand


@given(st.lists(words, min_size=1, max_size=4), words, words)
def test_a_passage_of_eight_words_is_found_wherever_it_stands(passages, before, after):
    for passage in passages:
        text = " ".join([*before, *passage, *after])
        assert Overlap(map(" ".join, passages)).within(text) or len(passage) < 8


def test_nothing_is_within_nothing():
    assert not Overlap([]).within("one two three four five six seven eight nine")
    assert not Overlap(["one two"]).within("one two")
    assert not Overlap(["one two three four five six seven eight"]).within("")


def test_examples_in_the_docstrings():
    assert doctest.testmod(overlap).failed == 0
