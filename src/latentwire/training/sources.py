"""What a run reads: passages of plain text, questions to train on, and those kept aside."""

from __future__ import annotations

from pathlib import Path

from latentwire.data.crops import cropped
from latentwire.data.rows import data_dir, read_examples
from latentwire.data.squad import kept_aside, load_split
from latentwire.data.text import iter_articles
from latentwire.data.written import written
from latentwire.errors import UserError
from latentwire.saved import settings_of
from latentwire.training.config import TrainConfig
from latentwire.training.corpus import cut_windows, made_questions
from latentwire.types import Example


def read(config: TrainConfig, data: str | None) -> tuple[list[tuple[str, str]], list[Example], list[Example]]:
    """What the objectives of a run ask for: passages of text with what follows, questions, and those kept aside."""
    made = [objective.build() for objective in config.objectives.values()]
    sources = {objective.source for objective in made if objective.role == "rows"}
    pairs = read_text(config, data) if "text" in sources else []
    train, dev = read_questions(config, data) if "questions" in sources else ([], [])
    return pairs, train, dev


def read_text(config: TrainConfig, data: str | None) -> list[tuple[str, str]]:
    """Passages of plain text and what follows them."""
    where = Path(config.corpus.text) if config.corpus.text else data_dir(data)
    # a wire that is trained on is not described in its run's config
    encoder = (settings_of(config.start) if config.start else config.wire).encoder
    return cut_windows(iter_articles(where), config.corpus, corpus_seed(config), encoder.chars)


def read_questions(config: TrainConfig, data: str | None) -> tuple[list[Example], list[Example]]:
    """Questions to train on, and those of articles kept aside for choices."""
    made: list[Example] = []
    if config.corpus.made:
        where = Path(config.corpus.text) if config.corpus.text else data_dir(data)
        made = made_questions(iter_articles(where, lines=config.corpus.made_lines), config.corpus, corpus_seed(config))
    if config.corpus.written:
        made += written(data_dir(data), config.corpus.written)
    if not config.corpus.questions:
        where = data_dir(data)
        return _with_crops(load_split(where, "train"), config) + made, load_split(where, "dev")
    # a question without an answer is nothing that a frozen receiver could be led to
    rows = [row for row in read_examples(config.corpus.questions) if row.answers]
    if not rows:
        raise UserError(f"{config.corpus.questions} holds no question with an answer")
    # without article titles the context decides: all its questions are kept aside or none
    aside = [kept_aside(example.context) for example in rows]
    train = [e for e, out in zip(rows, aside, strict=True) if not out]
    return (
        _with_crops(train, config) + made,
        [e for e, out in zip(rows, aside, strict=True) if out],
    )


def _with_crops(rows: list[Example], config: TrainConfig) -> list[Example]:
    return rows + cropped(rows, config.corpus.crops, corpus_seed(config)) if config.corpus.crops else rows


def corpus_seed(config: TrainConfig) -> int:
    """What is cut, made and drawn depends on it."""
    return config.seed if config.corpus.seed is None else config.corpus.seed
