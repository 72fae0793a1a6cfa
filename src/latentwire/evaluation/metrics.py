"""Exact match and F1 by SQuAD's official definitions (Rajpurkar et al. 2016, 2018), retention, and bootstrap intervals.

>>> f1("the 14 December", ["14 December 1911", "1911"])
0.8

Of a question that its context does not answer, saying nothing is right and saying anything is wrong (SQuAD 2.0). So is
half a yes of HotpotQA (Yang et al. 2018): there, an answer out of ``CLOSED`` is right or wrong as a whole.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from latentwire.data.hotpot import DATASET
from latentwire.types import Example

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
CLOSED = ("yes", "no", "noanswer")
"""Answers that HotpotQA's official script gives no part of."""

_DRAWS = 4_000_000
"""Most values drawn at once by the bootstrap: bounds its memory at about 64 MB."""


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and surplus white space, in the official script's order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the normalised prediction equals one of the normalised answers (is empty, if there is none), else 0."""
    said = normalise(prediction)
    return float(any(said == normalise(answer) for answer in answers or ("",)))


def f1(prediction: str, answers: Sequence[str], closed: bool = False) -> float:
    """Best word-overlap F1 with any of the answers, in [0, 1]. closed: HotpotQA's rule for ``CLOSED``."""
    said = normalise(prediction)
    if not answers:
        return float(not said)
    return max(_f1(said, normalise(answer), closed) for answer in answers)


def score(prediction: str, example: Example) -> float:
    """F1 by the rule of the example's dataset."""
    return f1(prediction, example.answers, closed=example.dataset == DATASET)


def _f1(said: str, gold: str, closed: bool) -> float:
    if closed and (said in CLOSED or gold in CLOSED):
        return float(said == gold)
    return _overlap(said.split(), gold.split())


def _overlap(said: list[str], gold: list[str]) -> float:
    common = sum((Counter(said) & Counter(gold)).values())
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def bootstrap_ci(values: Sequence[float], seed: int = 0, n: int = 1000) -> tuple[float, float]:
    """95 % interval of the mean of ``values`` by ``n`` resamples (percentiles). Same seed, same interval."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"expected a list of at least one value, got shape {array.shape}")
    rng = np.random.default_rng(seed)
    step = max(1, _DRAWS // array.size)
    means = [
        array[rng.integers(0, array.size, (min(step, n - start), array.size))].mean(1) for start in range(0, n, step)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def retention(x: float, none: float, full: float) -> float | None:
    """Share of what the text adds over no context that is kept: 0 is lost, 1 is as good as the text.

    None where the text adds nothing, for then there is nothing to keep.
    """
    return (x - none) / (full - none) if full > none else None
