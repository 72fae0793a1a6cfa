"""Each condition gives what its name says, by luck that depends on the seed alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire.conditions import Condition, Data, TextRow
from latentwire.evaluation.runner import ORDER
from latentwire.types import Latents

TAIL, ANCHOR = [50, 51, 52, 8, 9], [8, 9]


def make(name: str):
    return Condition.known()[name]()


def row(context: int = 10, latents: int = 3, text: str = "x" * 40, room: int = 100) -> TextRow:
    return TextRow(text, context, TAIL, ANCHOR, latents, room)


def latents(counts: tuple[int, ...] = (3, 1, 2), D: int = 4) -> Latents:
    mask_BM = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    z_BMD = torch.randn(len(counts), max(counts), D, generator=torch.Generator().manual_seed(1)) * mask_BM[..., None]
    return Latents(z_BMD, mask_BM, torch.tensor(counts) * 4, torch.full((len(counts),), 4))


def test_every_condition_has_a_place_and_only_what_gives_vectors_must_be_asked_for():
    assert set(ORDER) == set(Condition.known())
    asked = {name for name, condition in Condition.known().items() if not condition.by_default}
    assert asked == {"replay-raw", "replay-anchor", "replay-adapter", "pca", "mean-pooled"}


def test_text_and_none_keep_the_question():
    assert make("text").give(row()).keep == 10
    assert make("none").give(row()).keep == 0
    assert make("text").give(row()).tail == make("none").give(row()).tail == TAIL


def test_budget_loses_the_question_that_stands_last():
    got = make("budget").give(row(context=10, latents=3))
    assert (got.keep, got.tail) == (3, ANCHOR)


@pytest.mark.parametrize(("latents", "tail"), [(2, ANCHOR), (4, [50, 51, *ANCHOR]), (9, TAIL)])
def test_budget_counts_the_question_behind_a_short_context(latents, tail):
    got = make("budget").give(row(context=2, latents=latents))
    assert (got.keep, got.tail) == (2, tail)


def test_defect_4_the_honest_budget_keeps_the_question():
    got = make("budget-question").give(row(context=10, latents=3))
    assert (got.keep, got.tail) == (3, TAIL)


@given(st.text(min_size=1), st.integers(-5, 60))
def test_same_bytes_cuts_between_characters(text, room):
    got = make("same-bytes").give(row(text=text, room=room)).text
    assert text.startswith(got)
    assert len(got.encode()) <= max(room, 0)
    # nothing that would have fitted is left out
    rest = text[len(got) :]
    assert not rest or len((got + rest[0]).encode()) > room


def test_same_bytes_does_not_apply_while_packets_are_no_smaller():
    condition = make("same-bytes")
    why = condition.not_applicable(Data([], [500, 90], [400, 100]))
    assert why is not None and "295" in why and "250" in why
    assert condition.not_applicable(Data([], [250], [250])) is not None
    # by the mean: an item whose packet is larger simply gets its whole text
    assert condition.not_applicable(Data([], [120, 80], [400, 70])) is None
    assert condition.give(row(text="short", room=120)).text == "short"


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=12), st.integers(0, 5))
def test_wrong_is_never_of_the_same_article(articles, seed):
    wrong = make("wrong")
    if len(set(articles)) == 1:
        assert "one article" in wrong.not_applicable(Data(articles, [], []))
        return
    assert wrong.not_applicable(Data(articles, [], [])) is None
    chosen = wrong.sources(articles, seed)
    assert len(chosen) == len(articles)
    assert all(articles[place] != own for place, own in zip(chosen, articles, strict=True))
    assert chosen == wrong.sources(articles, seed)


def test_wrong_differs_between_seeds_and_leans_on_no_text():
    articles = [str(number) for number in range(200)]
    wrong = make("wrong")
    assert wrong.sources(articles, 0) != wrong.sources(articles, 1)
    chosen = wrong.sources(articles, 0)
    assert max(chosen.count(place) for place in chosen) < 10


def test_shuffled_keeps_the_values_of_each_text_and_no_place():
    before = latents((30, 10, 20), D=8)
    after = make("shuffled").change(before, [0, 1, 2], seed=0)
    assert torch.equal(after.mask_BM, before.mask_BM)
    for old, new, mask in zip(before.z_BMD, after.z_BMD, before.mask_BM, strict=True):
        assert torch.equal(old[mask].flatten().sort().values, new[mask].flatten().sort().values)
        assert (old[mask] == new[mask]).float().mean() < 0.1
        assert not new[~mask].any()
    assert not torch.equal(before.z_BMD, after.z_BMD)


def test_shuffled_does_not_depend_on_the_batch():
    before = latents()
    condition = make("shuffled")
    together = condition.change(before, [0, 1, 2], seed=3)
    alone = condition.change(before.take(torch.tensor([2])), [2], seed=3)
    assert torch.equal(together.z_BMD[2], alone.z_BMD[0])
    assert not torch.equal(together.z_BMD, condition.change(before, [0, 1, 2], seed=4).z_BMD)


def test_zero_and_latents():
    before = latents()
    assert not make("zero").change(before, [0, 1, 2], 0).z_BMD.any()
    assert make("latents").change(before, [0, 1, 2], 0) is before
    assert make("latents").sources(["a", "a", "b"], 0) == [0, 1, 2]
