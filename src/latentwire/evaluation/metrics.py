"""Exact match and F1 by SQuAD's official definition, retention, and bootstrap intervals."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and surplus white space (SQuAD 1.1's evaluation script)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the normalised prediction equals one of the normalised answers."""
    said = normalise(prediction)
    return float(any(said == normalise(answer) for answer in answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Best word-overlap F1 with any of the answers, in [0, 1]."""
    return max((_overlap(normalise(prediction).split(), normalise(answer).split()) for answer in answers), default=0.0)


def _overlap(said: list[str], gold: list[str]) -> float:
    common = sum((Counter(said) & Counter(gold)).values())
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def bootstrap_ci(values: Sequence[float], seed: int = 0, n: int = 1000) -> tuple[float, float]:
    """95 % interval of the mean by ``n`` resamples."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values to resample")
    rng = np.random.default_rng(seed)
    means = np.empty(n)
    step = max(1, 4_000_000 // array.size)  # bounds the memory of one draw
    for start in range(0, n, step):
        rows = min(step, n - start)
        means[start : start + rows] = array[rng.integers(0, array.size, (rows, array.size))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def retention(x: float, none: float, full: float) -> float | None:
    """Share of what the text adds over no context: 0 is lost, 1 is as good as the text; None if the text adds nothing."""
    return (x - none) / (full - none) if full > none else None
