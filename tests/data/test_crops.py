"""Crops are pieces of their context, shorter than it, and hold what is asked about."""

from __future__ import annotations

from latentwire.data.crops import cropped
from latentwire.types import Example

CONTEXT = (
    "The expedition left Oslo in 1910. It reached the ice in January. Roald Amundsen led it. Four men went with him. "
    "They stood at the pole on 14 December 1911. Robert Scott came five weeks later."
)
ASKED = [("Where did it leave?", "Oslo"), ("Who led it?", "Roald Amundsen"), ("Who came later?", "Robert Scott"),
         ("What did they do?", "in")]  # fmt: skip
ROWS = [Example(f"q{i}", CONTEXT, q, (a,)) for i, (q, a) in enumerate(ASKED)]


def test_crops_are_shorter_pieces_that_hold_the_answers_of_their_questions():
    made = cropped(ROWS, 4, seed=0)
    contexts = {row.context for row in made}
    assert len(contexts) == 4 and CONTEXT not in contexts
    for row in made:
        before, _, behind = CONTEXT.partition(row.context)
        assert len(before + behind) < len(CONTEXT) and row.context.count(".") >= 3, "a piece of at least half of it"
        assert row.answers[0] in row.context
    assert len({row.id for row in made} | {row.id for row in ROWS}) == len(made) + len(ROWS)
    assert {row.question for row in made} > {"Who led it?"}


def test_a_question_whose_answer_also_stood_in_what_was_left_out_is_not_asked():
    assert not [row for row in cropped(ROWS, 9, seed=0) if row.question == "What did they do?" and "in" in
                (CONTEXT.replace(row.context, ""))]  # fmt: skip


def test_the_same_seed_makes_the_same_crops_and_one_sentence_makes_none():
    assert cropped(ROWS, 2, seed=1) == cropped(ROWS, 2, seed=1) != cropped(ROWS, 2, seed=2)
    assert cropped([Example("a", "One sentence alone.", "How many?", ("One",))], 3, seed=0) == []
