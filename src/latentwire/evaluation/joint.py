"""Answers of several receivers, weighed by all: each scores each answer behind its own prefix, the best is taken.

A receiver's score of an answer is the negative log-likelihood per token of that answer, in the receiver's own tokens
and with its end token, given what the receiver was given; so tokenizers need not agree, and a long answer is not worse
for being long. The joint answer is the one of the lowest mean score over receivers. Nothing here sees a gold answer but
the oracle: what would be had if the best answer were always known, which bounds any way of choosing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from latentwire.evaluation.bench import Bench
from latentwire.evaluation.giving import Clock, giving, read_prompts
from latentwire.evaluation.items import Items
from latentwire.evaluation.measure import PARTS, judge
from latentwire.evaluation.metrics import bootstrap_ci, exact_match, normalise, score
from latentwire.evaluation.plan import Job
from latentwire.evaluation.results import Key, Row, named
from latentwire.types import Example


@dataclass
class Weighed:
    """Per example. answers: of each receiver, by name. scores: of each receiver's answer its mean nll per token over
    all receivers, lower is better. seconds: of the weighing."""

    answers: dict[str, list[str]]
    scores: dict[str, list[float]]
    seconds: dict[str, float]

    def chosen(self, example: int) -> str:
        """Whose answer it is; of equal ones the first receiver's."""
        return min(self.scores, key=lambda name: self.scores[name][example])

    def predictions(self) -> list[str]:
        """The joint answers."""
        count = len(next(iter(self.answers.values())))
        return [self.answers[self.chosen(i)][i] for i in range(count)]


@torch.no_grad()
def weigh(bench: Bench, jobs: list[Job], answers: dict[str, list[str]], tick: Callable[[int], None]) -> Weighed:
    """Score all receivers' answers under one condition. jobs: one for each receiver. answers: of each, in the order of
    the questions. tick: told how many questions a receiver has weighed."""
    n = len(bench.items.examples)
    totals = {name: [0.0] * n for name in answers}
    seconds = dict.fromkeys(PARTS, 0.0)
    for job in jobs:
        receiver = bench.wire.get_receiver(job.key[0])
        terms, _ = bench.terms(job)
        clock = Clock(receiver.device, seconds)
        ids = {name: receiver.prompt.answer_ids(said) for name, said in answers.items()}
        for batch in read_prompts(receiver, giving(bench.wire, receiver, job.condition, terms), terms, clock):
            with clock("decode"):
                for name, rows in ids.items():
                    nll, count, _ = judge(receiver, batch.prefix, batch.last, [rows[i] for i in batch.examples])
                    for row, i in enumerate(batch.examples):
                        totals[name][i] += nll[row] / count[row]
            tick(len(batch.examples))
    return Weighed(answers, {name: [x / len(jobs) for x in row] for name, row in totals.items()}, seconds)


def joint_row(got: Weighed, items: Items, key: Key, rows: list[Row], seed: int) -> Row:
    """A row like those of ``rows``, which are the receivers' own, with what only several receivers have.

    Every receiver holds its own positions, so these are summed; a packet is sent once. agreement: share of questions
    that all receivers answered alike (normalised). oracle_f1, oracle_em: of the best of their answers by the gold ones.
    chosen: share of questions by whose answer was taken.
    """
    n, examples, said = len(items.examples), items.examples, got.predictions()
    scores = [score(text, e) for text, e in zip(said, examples, strict=True)]
    by_question = list(zip(*got.answers.values(), strict=True))

    def right(text: str, example: Example) -> float:
        return exact_match(text, example.answers)

    def best(metric: Callable[[str, Example], float]) -> float:
        each = [max(metric(text, e) for text in texts) for texts, e in zip(by_question, examples, strict=True)]
        return round(sum(each) / n, 4)

    whose = [got.chosen(i) for i in range(n)]
    return named(key, items) | {
        "em": round(sum(exact_match(text, e.answers) for text, e in zip(said, examples, strict=True)) / n, 4),
        "f1": round(sum(scores) / n, 4),
        "f1_ci": [round(end, 4) for end in bootstrap_ci(scores, seed)],
        "nll": None,
        "first_token": None,
        "retention": None,
        "positions": round(sum(row["positions"] for row in rows), 2),
        "kv_positions": round(sum(row["kv_positions"] for row in rows), 2),
        "own_ratio": None,
        "bytes": max(row["bytes"] for row in rows),
        "cut": max(row["cut"] for row in rows),
        "seconds": {part: round(value, 3) for part, value in got.seconds.items()},
        "na": None,
        "agreement": round(sum(len(set(map(normalise, texts))) == 1 for texts in by_question) / n, 4),
        "oracle_f1": best(score),
        "oracle_em": best(right),
        "chosen": {name: round(whose.count(name) / n, 4) for name in got.answers},
    }


def joint_lines(got: Weighed) -> list[dict]:
    """What a line of ``predictions.jsonl`` has beside the joint answer: whose it is, and every answer's score."""
    scores = list(zip(*got.scores.values(), strict=True))
    return [
        {"chosen": got.chosen(i), "scores": dict(zip(got.scores, (round(x, 4) for x in row), strict=True))}
        for i, row in enumerate(scores)
    ]
