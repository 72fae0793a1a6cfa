"""Rows of packed questions hold every block once and supervise the right tokens."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire.sandbox import packing

BLOCK = st.tuples(
    st.lists(st.integers(3, 99), min_size=2, max_size=9), st.lists(st.integers(3, 99), min_size=1, max_size=4)
)
GROUP = st.builds(
    packing.Group, st.lists(st.integers(3, 99), min_size=3, max_size=30), st.lists(BLOCK, min_size=1, max_size=20)
)


def blocks(rows):
    found = []
    for ids, segment, place, role in zip(rows.ids, rows.segment, rows.position, rows.role, strict=True):
        for s in np.unique(segment[segment != packing.PADDING]):
            if s % packing.BLOCKS:
                context = ids[segment == s - s % packing.BLOCKS]
                assert place[segment == s].tolist() == list(range(len(context), len(context) + (segment == s).sum()))
                answer = ids[(segment == s) & (role == packing.ANSWER)]
                found.append((tuple(context), tuple(ids[segment == s]), tuple(answer)))
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(GROUP, min_size=1, max_size=12))
def test_every_block_stands_once_behind_its_context(groups):
    rows = packing.pack(groups, 64)
    wanted = [(tuple(g.context), tuple(q + a), tuple(a)) for g in groups for q, a in g.blocks]
    assert sorted(blocks(rows)) == sorted(wanted)


def test_a_block_that_can_never_fit_is_left_out():
    rows = packing.pack([packing.Group([3] * 60, [([4] * 9, [5])]), packing.Group([3], [([4], [5, 2])])], 64)
    assert len(blocks(rows)) == 1


def test_first_tokens_of_segments_are_no_targets():
    rows = packing.pack([packing.Group([1, 7, 8], [([9, 9], [5, 2]), ([9, 9], [6, 2])])], 16)
    assert rows.role[0, :11].tolist() == [0, 1, 1, 0, 1, 2, 2, 0, 1, 2, 2]
