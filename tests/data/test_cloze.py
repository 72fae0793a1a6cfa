"""Questions made from text are answered by the text."""

from __future__ import annotations

from random import Random

from latentwire.data import cloze

PASSAGE = (
    "The University of Kraków was founded in 1364 by King Casimir. It is the oldest university in Poland. "
    "In 1818 the university was renamed after the Jagiellonian dynasty because of its role in reviving the school. "
    "Nicolaus Copernicus studied mathematics at the university between 1491 and 1495. About 40,000 students attend it. "
    "King Casimir paid for the first chairs with the income of the salt mines."
)


def test_every_answer_stands_in_the_context():
    for seed in range(60):
        context, made = cloze.questions(PASSAGE, Random(seed))
        for question, answer in made:
            assert answer in context
            assert question.strip() and answer.strip()


def test_questions_follow_from_the_seed():
    assert cloze.questions(PASSAGE, Random(4)) == cloze.questions(PASSAGE, Random(4))


def test_what_is_asked_fits_the_kind():
    sentence = "The bridge was opened in 1932."
    year = next(span for span in cloze.spans(sentence) if span.kind == "year")
    asked = {cloze.ask(sentence, year, Random(seed)).split(" ")[0].lower() for seed in range(40)}
    assert asked & {"when", "in"}


def test_a_sentence_taken_out_is_not_in_the_context():
    shorter = [c for s in range(40) for c, made in [cloze.questions(PASSAGE, Random(s))] if len(c) < len(PASSAGE)]
    assert shorter, "King Casimir and the years stand twice: some seed takes a sentence out"


def test_passages_are_of_the_asked_size():
    article = "\n".join(["A title."] + [("Some words stand here. " * 30).strip()] * 5)
    made = list(cloze.passages(article, 200, 500))
    assert made and all(200 <= len(p) <= 500 for p in made)
    assert all("title" not in p for p in made)
