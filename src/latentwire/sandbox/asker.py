"""Train a small model that asks: ``python -m latentwire.sandbox.asker CONFIG [key=value …] [--data-dir DIR]``.

People's questions are few, and questions made by rule from sentences are easier than theirs. A reader trained a minute
longer on people's questions, the other way round (passage, then answer and question, the next answer and question …),
asks more of their kind about any passage (question generation, Du et al. 2017; answer and question from one model,
Alberti et al. 2019). ``latentwire.sandbox.asking`` lets it write. The run's folder holds ``checkpoint/`` with
``measured.json``; a killed run goes on from its last epoch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from latentwire import config as configs
from latentwire.data.rows import data_dir, read_examples
from latentwire.data.squad import load_split
from latentwire.errors import UserError
from latentwire.prompt import Prompt, PromptConfig
from latentwire.shipped import resolve
from latentwire.types import Example

IGNORE = -100  # what transformers leaves out of a loss


@dataclass(frozen=True)
class AskerConfig:
    """start: the reader to begin with. epochs: over all passages, each time with their questions in another order.
    batch: passages a step. rate: peak learning rate, falling in a half cosine. longest: tokens of a row; questions that
    do not fit are left out. limit: passages to learn from, and kept aside, at most (0: all)."""

    name: str = "asker"
    start: str = "sandbox:llama"
    seed: int = 1
    epochs: int = 4
    batch: int = 32
    rate: float = 5e-4
    warmup: int = 50
    decay: float = 0.01
    longest: int = 448
    limit: int = 0
    device: str = "auto"
    out: str = "runs/askers"


def by_passage(examples: Iterable[Example]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Passages with their (answer, question) pairs."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for example in examples:
        found[example.context].append((example.answers[0], example.question))
    return list(found.items())


def rows(passages: list[tuple[str, list[tuple[str, str]]]], prompt: Prompt, longest: int, rng: Random) -> list[dict]:
    """A row for each passage, its pairs in random order: ``input_ids``, and ``labels`` on all that follows it."""
    head, made = prompt.head_ids(), []
    contexts = prompt.context_ids([context for context, _ in passages])
    pairs = [pair for _, many in passages for pair in many]
    asked = iter(zip(*(prompt.ids([text[i] for text in map(_texts(prompt), pairs)]) for i in (0, 1)), strict=True))
    for context, (_, many) in zip(contexts, passages, strict=True):
        own = [answer + question for answer, question in (next(asked) for _ in many)]
        rng.shuffle(own)
        start = head + context
        row = list(start)
        for ids in own:
            if len(row) + len(ids) < longest:
                row += ids
        if len(row) > len(start):
            row.append(prompt.eos_id)
            made.append({"input_ids": row, "labels": [IGNORE] * len(start) + row[len(start) :]})
    return made


def _texts(prompt: Prompt) -> Any:
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


def train(config: AskerConfig, data: Path) -> Path:
    """The whole run; returns the checkpoint's folder."""
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    from latentwire.receivers.tokenizer import load_tokenizer

    folder = Path(config.out) / config.name
    # a run of another config goes on from nothing of this one
    state = folder / f"state-{configs.config_hash(config)}"
    start = resolve(config.start)
    tokenizer = load_tokenizer(start)
    prompt = Prompt(PromptConfig(), tokenizer)
    people = load_split(data, "train")
    for path in sorted((data / "nq").glob("train.jsonl*")):
        people += read_examples(path)
    known, aside = (by_passage(split) for split in (people, load_split(data, "dev")))
    known, aside = known[: config.limit or None], aside[: config.limit or None]
    rng = Random(config.seed)
    learnt = [row for _ in range(config.epochs) for row in _shuffled(rows(known, prompt, config.longest, rng), rng)]
    held = rows(aside, prompt, config.longest, rng)
    if not learnt:
        raise UserError(f"no passage of people's questions fits {config.longest} tokens (longest)")
    cuda = torch.cuda.is_available() and config.device != "cpu"
    steps = -(-len(learnt) // config.batch)
    settings = TrainingArguments(
        output_dir=str(state), per_device_train_batch_size=config.batch, num_train_epochs=1,
        per_device_eval_batch_size=config.batch, learning_rate=config.rate, lr_scheduler_type="cosine",
        warmup_steps=config.warmup, weight_decay=config.decay, max_grad_norm=1.0, bf16=cuda, use_cpu=not cuda,
        seed=config.seed, train_sampling_strategy="sequential", save_steps=-(-steps // config.epochs),
        save_total_limit=1, logging_steps=20, report_to="none", disable_tqdm=not sys.stderr.isatty(),
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    trainer = Trainer(model=model, args=settings, train_dataset=learnt, eval_dataset=held, data_collator=padded)
    stopped = any(state.glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=stopped or None)
    loss = trainer.evaluate()["eval_loss"] if held else None
    target, partial = folder / "checkpoint", folder / ".checkpoint"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    facts = {"config": configs.encode(config), "passages": len(known), "steps": trainer.state.global_step,
             "loss": loss, "kept_aside": len(held)}  # fmt: skip
    (partial / "measured.json").write_text(json.dumps(facts, indent=1) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
    shutil.rmtree(state, ignore_errors=True)
    return target


def padded(batch: list[dict]) -> dict[str, torch.Tensor]:
    """Rows as one batch. What fills them up stands behind them, where a causal model needs no mask."""
    ids, labels = ([torch.tensor(row[key]) for row in batch] for key in ("input_ids", "labels"))
    pad = torch.nn.utils.rnn.pad_sequence
    return {"input_ids": pad(ids, batch_first=True), "labels": pad(labels, batch_first=True, padding_value=IGNORE)}


def _shuffled(made: list[dict], rng: Random) -> list[dict]:
    rng.shuffle(made)
    return made


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m latentwire.sandbox.asker", description=(__doc__ or "").split(":")[0] + "."
    )
    parser.add_argument("config", help="a YAML file, for example configs/sandbox/askers/asker.yaml")
    parser.add_argument("overrides", nargs="*", help="key=value, for example epochs=2 start=sandbox:qwen2")
    parser.add_argument("--data-dir", help="folder with squad/ and perhaps nq/ (else LATENTWIRE_DATA)")
    given = parser.parse_intermixed_args(arguments)
    try:
        config = configs.load(given.config, AskerConfig, given.overrides)
        print(train(config, data_dir(given.data_dir)))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
