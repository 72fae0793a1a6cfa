"""Train a small model that asks: ``python -m latentwire.sandbox.asker CONFIG [key=value …] [--data-dir DIR]``.

People's questions are few, and questions made by rule from sentences are easier than theirs. A reader trained a minute
longer on people's questions, the other way round (passage, then answer and question, the next answer and question …),
asks more of their kind about any passage (question generation, Du et al. 2017; answer and question from one model,
Alberti et al. 2019). ``latentwire.sandbox.asking`` lets it write. The run is a reader's in every respect
(``latentwire.sandbox.receivers``); its folder holds ``checkpoint/`` with ``measured.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from latentwire import config as configs
from latentwire.data.rows import data_dir, read_examples
from latentwire.data.squad import load_split
from latentwire.errors import UserError
from latentwire.prompt import Prompt, PromptConfig
from latentwire.receivers.tokenizer import load_tokenizer
from latentwire.sandbox import packing
from latentwire.sandbox.config import ReaderConfig
from latentwire.sandbox.feed import Batch, Feed
from latentwire.sandbox.receivers import Run
from latentwire.shipped import resolve
from latentwire.types import Example


@dataclass(frozen=True)
class AskerConfig(ReaderConfig):
    """A reader's settings, of which those of text and of made questions say nothing here. start: the reader to begin
    with, whose shape it is. epochs: over all passages, each time with their questions in another order; they set the
    length of the phase ``questions``. limit: passages to learn from, and kept aside, at most."""

    name: str = "asker"
    start: str | None = "sandbox:llama"
    epochs: float = 2.0
    out: str = "runs/askers"


def by_passage(examples: Iterable[Example]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Passages with their (answer, question) pairs."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for example in examples:
        found[example.context].append((example.answers[0], example.question))
    return list(found.items())


def groups(
    passages: list[tuple[str, list[tuple[str, str]]]], prompt: Prompt, longest: int, rng: Random
) -> list[packing.Group]:
    """A group for each passage, all its pairs one block in random order. Pairs that do not fit into ``longest`` tokens
    are left out, and so is a passage without any."""
    head, anchor, made = prompt.head_ids(), prompt.anchor_ids(), []
    contexts = prompt.context_ids([context for context, _ in passages])
    pairs = [pair for _, many in passages for pair in many]
    asked = iter(zip(*(prompt.ids([text[i] for text in map(_texts(prompt), pairs)]) for i in (0, 1)), strict=True))
    for context, (_, many) in zip(contexts, passages, strict=True):
        own = [answer + question for answer, question in (next(asked) for _ in many)]
        rng.shuffle(own)
        written: list[int] = []
        for ids in own:
            if len(head) + len(context) + len(written) + len(ids) < longest:
                written += ids
        if written:
            # the anchor is given to whoever asks, what stands behind it is to be learnt
            made.append(packing.Group(head + context, [(anchor, [*written[len(anchor) :], prompt.eos_id])]))
    return made


def _texts(prompt: Prompt) -> Callable[[tuple[str, str]], tuple[str, str]]:
    c = prompt.config
    return lambda pair: (c.anchor + c.answer.format(answer=pair[0]), prompt.question_text(pair[1]))


def read_back(text: str, prompt: Prompt) -> list[tuple[str, str]]:
    """(answer, question) pairs of what an asker wrote behind the first anchor; what is unfinished is left out.

    >>> from types import SimpleNamespace as Plain
    >>> layout = Prompt(PromptConfig(), Plain(eos_token_id=2, bos_token_id=1, pad_token_id=0))
    >>> read_back(" 1066\\nQuestion: When was it?\\nAnswer: William\\nQuestion: Who", layout)
    [('1066', 'When was it?')]
    """
    before = prompt.question_text("")
    pairs = []
    for part in text.split(prompt.config.anchor):
        answer, _, question = part.partition(before.rstrip())
        answer, question = answer.strip(), question.strip()
        if answer and question.endswith("?") and question.count("?") == 1 and "\n" not in answer + question:
            pairs.append((answer, question))
    return pairs


class AskerRun(Run):
    """A reader's run over rows of passages with what is asked about them."""

    kinds = (True,)

    def __init__(self, config: AskerConfig, data: Path) -> None:
        self.begun_from = Path(resolve(str(config.start)))
        prompt, rng = Prompt(PromptConfig(), load_tokenizer(self.begun_from)), Random(config.seed)
        people = load_split(data, "train")
        for path in sorted((data / "nq").glob("train.jsonl*")):
            people += read_examples(path)
        known, aside = (by_passage(split)[: config.limit] for split in (people, load_split(data, "dev")))

        def packed(passages: list[tuple[str, list[tuple[str, str]]]], times: float) -> packing.Rows | None:
            found = [group for _ in range(max(1, round(times))) for group in groups(passages, prompt, config.row, rng)]
            rng.shuffle(found)
            return packing.pack(found, config.row) if found else None

        rows, self.aside = packed(known, config.epochs), packed(aside, 1)
        if rows is None:
            raise UserError(f"no passage of people's questions fits {config.row} tokens (row)")
        self.rows, self.passages = rows, len(known)
        phase = replace(config.questions, steps=config.questions.steps or -(-len(rows) // config.batch))
        super().__init__(config, data, {"questions": phase})

    def prepare(self) -> Feed:
        """Rows of questions alone."""
        shutil.copyfile(self.begun_from / "tokenizer.json", self.folder / "tokenizer.json")
        self.warm_up()
        return self._feed(self.rows)

    def batch(self, feed: Feed) -> Batch:
        """The next batch."""
        return feed.questions(self.config.batch, self.config.batch, self.clock.count)

    def loss_aside(self) -> float | None:
        """The loss of a token on the slice kept aside; None without one."""
        if self.aside is None:
            return None
        feed, count = self._feed(self.aside), -(-len(self.aside) // self.config.batch)
        # with gradients switched on, which nothing uses: the compiled step is then the one that is there
        return sum(self.loss(self.batch(feed))[1].item() for _ in range(count)) / count

    def _feed(self, rows: packing.Rows) -> Feed:
        feed = Feed(None, self.config.shape.positions, self.config.seed, self.device)
        feed.add(None, rows)
        return feed


def train(config: AskerConfig, data: Path) -> Path:
    """The whole run; returns the checkpoint's folder."""
    run = AskerRun(config, data)
    folder = run.train()
    facts = {"config": configs.encode(config), "passages": run.passages, "rows": len(run.rows),
             "steps": run.clock.count, "tokens": run.tokens, "loss": run.loss_aside()}  # fmt: skip
    (folder / "measured.json").write_text(json.dumps(facts, indent=1) + "\n")
    return folder


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m latentwire.sandbox.asker", description=(__doc__ or "").split(":")[0] + "."
    )
    parser.add_argument("config", help="a YAML file, for example configs/sandbox/askers/asker.yaml")
    parser.add_argument("overrides", nargs="*", help="key=value, for example epochs=3 batch=32")
    parser.add_argument("--data-dir", help="folder with squad/ and perhaps nq/ (else LATENTWIRE_DATA)")
    given = parser.parse_intermixed_args(arguments)
    try:
        config = configs.load(given.config, AskerConfig, given.overrides)
        print(train(config, data_dir(given.data_dir)))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
