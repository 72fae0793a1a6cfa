"""The two scores of a text against another, against the definition done the slow way."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest

from latentwire.readback import overlap
from latentwire.readback.overlap import common_subsequence


def slow(a: list[str], b: list[str]) -> int:
    @cache
    def longest(i: int, j: int) -> int:
        if not (i and j):
            return 0
        if a[i - 1] == b[j - 1]:
            return longest(i - 1, j - 1) + 1
        return max(longest(i - 1, j), longest(i, j - 1))

    return longest(len(a), len(b))


@pytest.mark.parametrize("seed", range(20))
def test_the_fast_way_gives_what_the_definition_gives(seed):
    rng = Random(seed)
    a, b = (rng.choices("abcd", k=rng.randint(0, 70)) for _ in range(2))
    assert common_subsequence(a, b) == slow(a, b)


def test_equal_words_are_all_and_none_are_nothing():
    assert overlap("The cat, SAT.", "the cat sat") == overlap("a", "a")
    assert overlap("the cat", "a dog") == overlap("", "a dog") == overlap("?!", "?!")
    assert (overlap("the cat", "the cat").f1, overlap("the cat", "").lcs) == (1.0, 0.0)


def test_order_counts_for_one_of_them_and_length_for_both():
    turned = overlap("mat the on sat cat the", "the cat sat on the mat")
    assert turned.f1 == 1.0 and turned.lcs == pytest.approx(3 / 6)  # the on the
    longer = overlap("the cat sat on the mat and then it slept all day", "the cat sat on the mat")
    assert longer.f1 == longer.lcs == pytest.approx(12 / 18)
