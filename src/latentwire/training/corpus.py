"""Everything a training run reads, tokenised once, in fixed shapes, kept on the training device.

Passages are cut as *text* and tokenised by the encoder and by every receiver, so that all of them stand for the same
characters whatever their tokens. Question passages keep all their questions behind them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from random import Random
from typing import Any

import numpy as np

from latentwire.data import cloze
from latentwire.encoders import Encoder
from latentwire.encoders.base import fill
from latentwire.errors import UserError
from latentwire.prompt import Prompt
from latentwire.training.config import CorpusConfig
from latentwire.training.store import Store
from latentwire.types import MODES, Example

log = logging.getLogger(__name__)
CHARS_PER_TOKEN = 4.3  # a first guess for cutting; what turns out too long is left out


def cut_windows(
    articles: Iterable[str], config: CorpusConfig, seed: int, chars: float = CHARS_PER_TOKEN
) -> list[tuple[str, str]]:
    """(passage, what follows) pairs cut from articles at word boundaries, of random lengths.

    chars: characters of an encoder's token, or of whatever else it counts in.
    """
    rng = np.random.default_rng(seed)
    behind = int(config.row * CHARS_PER_TOKEN * 1.6)
    pairs: list[tuple[str, str]] = []
    for text in articles:
        start = 0
        while len(text) - start > config.shortest * chars + behind:
            length = int(rng.integers(config.shortest, int(config.longest * 0.97) + 1) * chars)
            end = text.find(" ", start + length)
            if end < 0 or len(text) - end < behind:
                break
            pairs.append((text[start:end].strip(), text[end : end + behind]))
            start = end + 1
            if len(pairs) >= config.windows:
                return pairs
    return pairs


def text_store(
    pairs: list[tuple[str, str]], encoder: Encoder, prompts: dict[str, Prompt], config: CorpusConfig
) -> Store:
    """Tokenise passages and what follows them; passages that do not fit the fixed shapes are left out."""
    parts = [pairs[i : i + 2000] for i in range(0, len(pairs), 2000)]

    def work(part: list[tuple[str, str]]) -> Store | None:
        return _text_part(part, encoder, prompts, config)

    return _joined([store for store in _spread(work, parts, config.threads) if store is not None])


def _text_part(
    pairs: list[tuple[str, str]], encoder: Encoder, prompts: dict[str, Prompt], config: CorpusConfig
) -> Store | None:
    passages = [passage for passage, _ in pairs]
    fits, source, rows = _fitting(passages, encoder, prompts, config)
    if not fits:
        return None
    read = {}
    for name, prompt in prompts.items():
        behind = [ids[: config.row] for ids in prompt.ids([pairs[i][1] for i in fits])]
        read[name] = rows[name] | {"next": fill(behind, config.row), "next_count": _lengths(behind)}
    return Store(source, read)


def made_questions(articles: Iterable[str], config: CorpusConfig, seed: int) -> list[Example]:
    """Questions made from the sentences of ``config.made`` passages: they multiply the passages that are asked
    about.
    """
    texts: list[str] = []
    for article in articles:
        # passages of windows and of questions come from other articles as far as the text reaches
        texts += cloze.passages(article)
        if len(texts) >= config.made:
            break
    jobs = [list(enumerate(texts))[i : i + 500] for i in range(0, min(len(texts), config.made), 500)]

    def work(job: list[tuple[int, str]]) -> list[Example]:
        rows = []
        for number, text in job:
            context, asked = cloze.questions(text, Random(f"{seed}-{number}"))
            rows += [Example(f"made-{number}-{i}", context, q, (a,), "made") for i, (q, a) in enumerate(asked)]
        return rows

    return [row for part in _spread(work, jobs, config.threads) for row in part]


def question_store(
    examples: list[Example],
    encoder: Encoder,
    prompts: dict[str, Prompt],
    config: CorpusConfig,
    mode: str = MODES[0],
) -> Store:
    """Tokenise contexts, each with all its questions; what does not fit the fixed shapes is left out and counted.

    mode ``prompt``: each question stands behind its context and is read with it, and only the anchor follows.
    """
    by_context: dict[str, list[tuple[str, str]]] = defaultdict(list)
    layout = next(iter(prompts.values()))
    for example in examples:
        context = example.context + (layout.question_text(example.question) if mode == "prompt" else "")
        by_context[context].append((example.question, example.answers[0]))
    groups = list(by_context.items())[: config.contexts or None]
    jobs = [groups[i : i + 500] for i in range(0, len(groups), 500)]

    def work(part: list[tuple[str, list[tuple[str, str]]]]) -> Store | None:
        return _question_part(part, encoder, prompts, config, mode)

    store = _joined([part for part in _spread(work, jobs, config.threads) if part is not None])
    if store.size < len(groups):
        log.info("%d of %d contexts fit (corpus.longest, corpus.asked)", store.size, len(groups))
    return store


def _question_part(
    groups: list[tuple[str, list[tuple[str, str]]]],
    encoder: Encoder,
    prompts: dict[str, Prompt],
    config: CorpusConfig,
    mode: str,
) -> Store | None:
    fits, source, rows = _fitting([context for context, _ in groups], encoder, prompts, config)
    pairs = [(place, *pair) for place, i in enumerate(fits) for pair in groups[i][1]]
    good = np.ones(len(pairs), dtype=bool)
    lines: dict[str, tuple[list[list[int]], list[list[int]]]] = {}
    for name, prompt in prompts.items():
        asked = prompt.question_ids([q for _, q, _ in pairs])
        if mode == "prompt":
            asked = [prompt.anchor_ids()] * len(pairs)
        told = prompt.answer_ids([a for _, _, a in pairs])
        lines[name] = asked, told
        good &= _lengths(asked) + _lengths(told) <= config.asked
    chosen = np.flatnonzero(good).tolist()
    many = np.bincount([pairs[i][0] for i in chosen], minlength=len(fits))
    kept = np.flatnonzero(many).tolist()
    if not kept:
        return None
    read = {}
    for name, (asked, told) in lines.items():
        full = [asked[i] + told[i] for i in chosen]
        read[name] = {key: value[kept] for key, value in rows[name].items()} | {
            "questions": fill(full, config.asked),
            "asks": _lengths([asked[i] for i in chosen]),
            "length": _lengths(full),
        }
    return Store({key: value[kept] for key, value in source.items()}, read, None, many[kept])


def _fitting(
    texts: list[str], encoder: Encoder, prompts: dict[str, Prompt], config: CorpusConfig
) -> tuple[list[int], dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    """Which texts are one piece of the encoder and within every receiver's width; their arrays for both."""
    width = int(config.longest * config.stretch)
    source = encoder.prepare(texts, config.longest)
    good = np.bincount(source.owner_P, minlength=len(texts)) == 1
    ids = {name: prompt.context_ids(texts) for name, prompt in prompts.items()}
    for rows in ids.values():
        good &= np.array([len(row) <= width for row in rows])
    fits = np.flatnonzero(good).tolist()
    pieces = np.flatnonzero(good[source.owner_P])
    read = {}
    for name, rows in ids.items():
        chosen = [rows[i] for i in fits]
        read[name] = {"ids": fill(chosen, width), "count": _lengths(chosen)}
    return fits, {key: value[pieces] for key, value in source.arrays.items()}, read


def _lengths(rows: list[list[int]]) -> np.ndarray:
    return np.array([len(row) for row in rows], dtype=np.int32)


def _joined(parts: list[Store]) -> Store:
    if not parts:
        raise UserError("no passage fits; lower corpus.shortest, or raise corpus.longest, .row or .asked")

    def stack(pick: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {key: np.concatenate([part[key] for part in pick]) for key in pick[0]}

    read = {name: stack([part.read[name] for part in parts]) for name in parts[0].read}
    counts = [part.many for part in parts if part.many is not None]
    many = np.concatenate(counts) if counts else None
    first = None if many is None else np.cumsum(many) - many
    return Store(stack([part.source for part in parts]), read, first, many)


_WORK: list[Callable[[Any], Any]] = []
"""What forked workers run: inherited through the fork, since encoders are not made to be pickled."""


def _run_inherited(job: Any) -> Any:
    return _WORK[-1](job)


def _spread(work: Callable[[Any], Any], jobs: list[Any], threads: int) -> list[Any]:
    threads = threads or max(1, (os.cpu_count() or 2) - 1)
    if threads == 1 or len(jobs) < 4 or "fork" not in multiprocessing.get_all_start_methods():
        return [work(job) for job in jobs]
    # tokenizers' own threads and forked workers would fight for the same cores
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _WORK.append(work)
    try:
        with ProcessPoolExecutor(threads, mp_context=multiprocessing.get_context("fork")) as pool:
            return list(pool.map(_run_inherited, jobs, chunksize=1))
    finally:
        _WORK.pop()
