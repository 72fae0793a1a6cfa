"""A corpus of a few articles and questions, and the config of a run on tiny readers that lasts seconds."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator

from latentwire.config import decode, override
from latentwire.training.config import TrainConfig
from latentwire.training.setup import Run, prepare

FULL = (
    "objectives.kl={type: kl, taught: 0.5, tokens: 2}",
    "objectives.first={type: first-token}",
    "objectives.states={type: hidden-states, taught: 0.5}",
    "objectives.gist={type: gist-head, tokens: 4, width: 8}",
    "objectives.rms={type: rms}",
    "objectives.smooth={type: label-smoothing, weight: {kind: gated, value: 0.1, after: gist, threshold: 0.01}}",
)
"""Judges by logits and by states, objectives of what is sent, one with a module of its own, and a gate."""
PEOPLE = ("Amundsen", "Curie", "Darwin", "Hopper", "Noether", "Turing", "Lovelace", "Ramanujan")
PLACES = ("Oslo", "Paris", "London", "York", "Erlangen", "Princeton", "Kyoto", "Madras")


def sentence(number: int) -> str:
    """One fact of its own."""
    who, where = PEOPLE[number % 8], PLACES[number * 5 % 8]
    return f"In {1800 + number} the {number}th letter of {who} was sent from {where} to {PLACES[number % 7]}."


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A folder ``text/`` of articles and a file ``questions.jsonl``."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "text").mkdir()
    articles = [" ".join(sentence(40 * a + i) for i in range(40)) for a in range(12)]
    with (root / "text" / "articles.jsonl").open("w") as file:
        for number, text in enumerate(articles):
            file.write(json.dumps({"title": f"Letters {number}", "text": text}) + "\n")
    with (root / "questions.jsonl").open("w") as file:
        for number in range(120):
            context = f"{sentence(number)} {sentence(number + 3)}"
            row = {"id": f"q{number}", "context": context, "question": f"Where was letter {number} sent from?"}
            file.write(json.dumps({**row, "answers": [PLACES[number * 5 % 8]]}) + "\n")
    return root


@pytest.fixture(scope="session")
def tiny_tree(tiny_readers, corpus) -> dict:
    """A training config: two receivers of other families, row objectives and kl, eight steps, on the CPU."""
    return tree_of(tiny_readers, corpus)


@pytest.fixture
def tiny_config(tiny_tree, tmp_path) -> Path:
    """The file of :func:`tiny_tree`."""
    return written(tiny_tree, tmp_path)


def written(tree: dict, folder: Path) -> Path:
    """A config's file, in a folder."""
    path = folder / "wire.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def tree_of(tiny_readers: dict[str, Path], corpus: Path) -> dict:
    """The config of :func:`tiny_tree`."""
    receivers = {"llama": "kv-prefix", "gemma": "soft-tokens"}
    return {
        "wire": {
            "encoder": {
                "type": "lm", "init": str(tiny_readers["llama"]), "d_z": 16, "ratios": [4, 8], "window": 200,
                "lexicons": [str(tiny_readers["gemma"])], "word": 8,
            },
            "links": {
                name: {
                    "receiver": str(tiny_readers[name]),
                    "adapter": {"type": "mlp", "layers": 1, "head_dim": 8},
                    "injection": {"type": how, "multiple": 1.0},
                }
                for name, how in receivers.items()
            },
        },
        "objectives": {
            "continuation": {"type": "continuation"},
            "recall": {"type": "recall", "rows": 2, "cue": 2},
            "answer": {"type": "answer"},
            "kl": {"type": "kl"},
        },
        "corpus": {
            "text": str(corpus / "text"), "questions": str(corpus / "questions.jsonl"), "windows": 60, "made": 8,
            "shortest": 8, "longest": 200, "row": 72, "dev": 8, "threads": 1, "stretch": 2.0,
        },
        "stages": [{"until": 0.5, "questions": 0.0}, {"until": 1.0, "questions": 0.7}],
        "steps": 8, "passages": 4, "asks": 2, "warmup": 2, "log_every": 1, "eval_every": 4, "save_every": 2,
        "device": "cpu",
    }  # fmt: skip


def made_ready(tree: dict, *more: str) -> Run:
    """What a config's tree, with overrides, makes ready for the loop."""
    config = decode(TrainConfig, override(copy.deepcopy(tree), list(more)))
    torch.manual_seed(0)
    return prepare(config, None, Accelerator(cpu=True))


@pytest.fixture(scope="session")
def shared_run(tiny_tree) -> Run:
    """What :func:`tiny_tree` makes ready, eight passages a step. No test steps its optimiser."""
    return made_ready(tiny_tree, "objectives.answer.question=0.2", "objectives.kl.taught=0.5", "passages=8")


@pytest.fixture(scope="session")
def shared_full_run(tiny_tree) -> Run:
    """The same with objectives of every role, modules of their own, and a gate."""
    return made_ready(tiny_tree, "objectives.answer.question=0.2", "passages=8", *FULL)


@pytest.fixture
def run(shared_run):
    """The shared run as it was made."""
    return as_made(shared_run)


@pytest.fixture
def full_run(shared_full_run):
    """The shared run with all roles as it was made."""
    return as_made(shared_full_run)


def as_made(run: Run) -> Run:
    """The run with nothing left of an earlier test."""
    run.step.fixed = False
    run.wire.train()
    for p in run.step.parameters():
        p.grad = None
    if run.step.gates.place:
        run.step.gates.smoothed_G.zero_()
    return run
