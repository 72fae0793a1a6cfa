"""What a request says is context and what is question, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire.errors import UserError
from latentwire.harness.asked import Asked, asked_of, cut_at
from latentwire.harness.marks import CONTEXT, QUESTION, split

WORDS = st.text(max_size=40).filter(lambda text: CONTEXT not in text and QUESTION not in text)


@given(WORDS.filter(str.strip), WORDS)
def test_what_is_marked_comes_back_as_it_was(context, question):
    text = f"{CONTEXT}{context}{QUESTION}{question}"
    if text.count(CONTEXT) == text.count(QUESTION) == 1:  # pieces of a mark may make another one
        assert split(text) == (context, question)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Oslo is a city. Where?", "no marked context"),
        (f"{CONTEXT}Oslo is a city.", "once"),
        (f"{QUESTION}Where?{CONTEXT}Oslo is a city.", "once"),
        (f"{CONTEXT}One.{QUESTION}Which? One\n\n{CONTEXT}Two.{QUESTION}Which?", "num_fewshot 0"),
        (f"Answer briefly. {CONTEXT}Oslo is a city.{QUESTION}Where?", "in front of"),
        (f"{CONTEXT} \n{QUESTION}Where?", "empty context"),
    ],
)
def test_a_request_without_its_marks_is_refused_and_says_why(text, why):
    with pytest.raises(UserError, match=why):
        split(text)


def test_a_task_says_how_long_answers_are_in_any_of_its_words():
    assert asked_of({"until": "\n", "max_new_tokens": 7, "temperature": 0.0}, 32) == Asked(7, ("\n",))
    assert asked_of({"until": ["", "."], "do_sample": False}, 32) == Asked(32, (".",))
    assert asked_of({"max_gen_toks": 3, "max_tokens": 9}, 32).tokens == 3


@pytest.mark.parametrize("wish", [{"do_sample": True, "temperature": 0.7}, {"num_beams": 4}])
def test_what_is_not_greedy_is_refused(wish):
    with pytest.raises(UserError, match=r"greedily|num_beams"):
        asked_of(wish, 32)


def test_an_answer_ends_in_front_of_the_first_stop():
    assert cut_at("one. two\nthree", ("\n", ".")) == "one"
    assert cut_at("one", ()) == "one"
