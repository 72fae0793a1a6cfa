"""A corpus of a few articles and questions, and the config of a run on tiny readers that lasts seconds."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml

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
    """A training config: two receivers of other families, all objectives, eight steps, on the CPU."""
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


@pytest.fixture
def tiny_config(tiny_tree, tmp_path) -> Path:
    """The file of :func:`tiny_tree`."""
    path = tmp_path / "wire.yaml"
    path.write_text(yaml.safe_dump(tiny_tree))
    return path


@pytest.fixture(scope="session")
def shared_run(tiny_tree):
    """What :func:`tiny_tree` makes ready for the loop, eight passages a step. No test steps its optimiser."""
    import torch
    from accelerate import Accelerator

    from latentwire.config import decode, override
    from latentwire.training.config import TrainConfig
    from latentwire.training.setup import prepare

    more = ["objectives.answer.question=0.2", "objectives.kl.taught=0.5", "passages=8"]
    torch.manual_seed(0)
    return prepare(decode(TrainConfig, override(copy.deepcopy(tiny_tree), more)), None, Accelerator(cpu=True))


@pytest.fixture
def run(shared_run):
    """The shared run as it was made."""
    shared_run.step.fixed = False
    shared_run.wire.train()
    for p in shared_run.wire.parameters():
        p.grad = None
    return shared_run
