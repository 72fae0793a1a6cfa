"""Metrics against the official script's definition, and what must hold for any text."""

from __future__ import annotations

import doctest
import math
import re
import string
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latentwire.evaluation import metrics
from latentwire.evaluation.metrics import bootstrap_ci, exact_match, f1, normalise, retention

words = st.lists(st.sampled_from(["the", "a", "Tesla", "1856", "born", "in", "Łódź", "東京", "U.S.", "an-ode", "'"]))
texts = st.one_of(st.text(max_size=30), words.map(" ".join))
scores = st.floats(0, 1)


def official_f1(prediction: str, answer: str) -> float:
    """The official script's f1_score, written as it is there."""

    def normalize_answer(s):
        s = s.lower()
        s = "".join(ch for ch in s if ch not in set(string.punctuation))
        s = re.sub(r"\b(a|an|the)\b", " ", s)
        return " ".join(s.split())

    prediction_tokens = normalize_answer(prediction).split()
    ground_truth_tokens = normalize_answer(answer).split()
    num_same = sum((Counter(prediction_tokens) & Counter(ground_truth_tokens)).values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


@given(texts, st.lists(texts, min_size=1, max_size=3))
@example("The", ["a"])
def test_f1_is_the_official_one(prediction, answers):
    assert f1(prediction, answers) == max(official_f1(prediction, a) for a in answers)


# (said, right answers, EM, F1), each by hand from the official scripts' rules
SQUAD = [
    ("The Norman.", ["Norman"], 1, 1.0),
    ("  norman\n", ["The Norman", "Normans"], 1, 1.0),
    ("Normans and Franks", ["Normans"], 0, 0.5),
    ("the the the", ["the"], 1, 0.0),  # nothing is left of either: equal, and without a common word
    ("10th-century", ["10th century"], 0, 0.0),  # a dash joins: one word against two others
    ("10th and 11th", ["10th", "11th and 10th"], 0, 1.0),  # F1 knows no order
    ("U.S.A.", ["USA"], 1, 1.0),
    ("a b a b", ["b b"], 1, 1.0),  # the letter a is an article
    ("St. Ann's", ["St Anns"], 1, 1.0),
    ("$1,200", ["1200"], 1, 1.0),
    ("1.200", ["1 200"], 0, 0.0),
    ("½", ["1/2"], 0, 0.0),
    ("Beyoncé", ["Beyonce"], 0, 0.0),  # accents stay
    ("“Norman”", ["Norman"], 0, 0.0),  # and so do quotation marks beyond ASCII
    ("", ["Norman"], 0, 0.0),
]
SQUAD_2 = [("", [], 1, 1.0), ("The.", [], 1, 1.0), ("Norman", [], 0, 0.0), ("no answer", [], 0, 0.0)]
HOTPOT = [
    ("yes", ["yes"], 1, 1.0),
    ("Yes!", ["yes"], 1, 1.0),
    ("yes it is", ["yes"], 0, 0.0),
    ("no", ["yes"], 0, 0.0),
    ("yes", ["yes it is"], 0, 0.0),
    ("no way", ["no man"], 0, 0.5),  # only whole answers are closed
    ("noanswer", ["Chief of Protocol"], 0, 0.0),
    ("Chief Protocol", ["Chief of Protocol"], 0, 0.8),
]


@pytest.mark.parametrize(("said", "answers", "em", "overlap"), [*SQUAD, *SQUAD_2])
def test_outcomes_of_the_official_squad_script(said, answers, em, overlap):
    assert exact_match(said, answers) == em
    assert f1(said, answers) == pytest.approx(overlap)


@pytest.mark.parametrize(("said", "answers", "em", "overlap"), HOTPOT)
def test_outcomes_of_the_official_hotpotqa_script(said, answers, em, overlap):
    assert exact_match(said, answers) == em
    assert f1(said, answers, closed=True) == pytest.approx(overlap)


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_scores_are_between_0_and_1_and_the_best_answer_counts(prediction, answers):
    assert 0 <= f1(prediction, answers) <= 1
    assert exact_match(prediction, answers) in (0, 1)
    assert f1(prediction, answers) == max(f1(prediction, [a]) for a in answers)
    if exact_match(prediction, answers) and normalise(prediction):
        assert f1(prediction, answers) == 1


@given(texts)
def test_normalising_twice_changes_nothing(text):
    # a letter whose lower case differs when it is lowered again would be an error of Unicode's, not ours
    assert normalise(normalise(text)) == normalise(text) or text.lower().lower() != text.lower()


def test_known_cases():
    assert exact_match("The  Beatles!", ["beatles"]) == 1
    assert exact_match("Beatle", ["beatles"]) == 0
    assert f1("in the year 1856", ["1856"]) == pytest.approx(0.5)
    assert f1("10 July", ["10 July 1856", "July"]) == pytest.approx(0.8)
    assert f1("1856 1856", ["1856"]) == pytest.approx(2 / 3)  # a word counts as often as the answer has it
    assert f1("", ["1856"]) == 0
    assert exact_match("x", []) == f1("x", []) == 0
    assert normalise("An A.N. theatre") == "theatre"  # punctuation goes first, so A.N. becomes an article


@given(st.lists(scores, min_size=1, max_size=60), st.integers(0, 9))
def test_interval_lies_around_the_mean_and_within_the_values(values, seed):
    low, high = bootstrap_ci(values, seed, n=200)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert (low, high) == bootstrap_ci(values, seed, n=200)


def test_interval_is_that_of_the_normal_law():
    values = np.random.default_rng(0).random(4851)
    low, high = bootstrap_ci(values.tolist(), n=1000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=half / 5)
    assert high == pytest.approx(values.mean() + half, abs=half / 5)


def test_interval_does_not_depend_on_how_draws_are_cut(monkeypatch):
    values = np.random.default_rng(1).random(50).tolist()
    whole = bootstrap_ci(values)
    monkeypatch.setattr(metrics, "_DRAWS", 700)
    assert bootstrap_ci(values) == whole


def test_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_ci([])


@given(scores, scores, scores)
def test_retention(x, none, full):
    kept = retention(x, none, full)
    if full <= none:
        assert kept is None
    else:
        assert kept is not None
        assert retention(none, none, full) == 0
        assert retention(full, none, full) == 1
        assert (kept > 1) == (x > full) or math.isclose(x, full)


def test_examples_in_the_docstrings():
    assert doctest.testmod(metrics).failed == 0
