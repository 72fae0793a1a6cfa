"""A corpus of a few articles and questions, and the config of a run on tiny readers that lasts seconds."""

from __future__ import annotations

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
def make_config(tiny_readers, corpus):
    """``make_config(folder)`` writes a config: two receivers of other families, all objectives, eight steps, CPU."""
    return lambda folder: write_config(folder, tiny_readers, corpus)


@pytest.fixture
def tiny_config(make_config, tmp_path) -> Path:
    """That config in a folder of the test's own."""
    return make_config(tmp_path)


def write_config(folder: Path, tiny_readers: dict[str, Path], corpus: Path) -> Path:
    receivers = {"llama": "kv-prefix", "gemma": "soft-tokens"}
    tree = {
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
    path = folder / "wire.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path
