"""``benchmarks/seen_unseen.py`` and ``benchmarks/slot_capacity.py`` on small readers: what they measure, of what."""

from __future__ import annotations

import importlib
import json
import sys
from itertools import count
from pathlib import Path

import pytest

from latentwire.data.squad import kept_aside


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Ten passages of people's questions to train on and ten kept aside, four questions each; and plain text."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "squad").mkdir()
    (folder / "text").mkdir()
    lines = []
    for aside in (True, False):
        titles = [title for title in (f"T{n}" for n in range(2000)) if kept_aside(title) == aside][:10]
        for title in titles:
            # between 500 and 900 characters, as the search wants them
            context = f"{title} was led by Roald Amundsen in 1911. " * 13
            for number in range(4):
                row = {"id": f"squad_v1-train-{title}-0-{number}", "context": context, "question": f"Who led {number}?"}
                lines.append(json.dumps({**row, "answers": ["Roald Amundsen"]}))
    (folder / "squad" / "train.jsonl").write_text("\n".join(lines) + "\n")
    numbers = count(1901)
    articles = [
        "\n".join(
            f"The expedition reached the pole in {next(numbers)} and was led by Captain Nils Berg of Oslo. "
            f"The town of Arendal has {next(numbers)} inhabitants. It was founded by King Olaf in {next(numbers)}. "
            f"The river Glomma was crossed by Anna Dahl in {next(numbers)}, who wrote the book Northern Letters. "
            f"The church of Saint Hallvard was built in {next(numbers)} by the mason Erik Lund near Bergen. "
            for _ in range(6)
        )
        for _ in range(40)
    ]
    rows = "".join(json.dumps({"title": f"A{n}", "text": text}) + "\n" for n, text in enumerate(articles))
    (folder / "text" / "some.jsonl").write_text(rows)
    return folder


@pytest.fixture(scope="module")
def saved(tiny_readers, tmp_path_factory) -> Path:
    from conftest import WORDS
    from latentwire.encoders.lm import LMEncoderConfig
    from latentwire.link import LinkConfig
    from latentwire.wire import Wire, WireConfig

    encoder = LMEncoderConfig(d_z=16, ratios=(4, 8), window=640, init=str(tiny_readers["llama"]))
    where = tmp_path_factory.mktemp("wire")
    Wire.create(
        WireConfig(encoder, {"llama": LinkConfig(receiver=str(tiny_readers["llama"]))}), [WORDS]
    ).save_pretrained(where)
    return where


@pytest.fixture
def run(monkeypatch):
    """A benchmark's command with these arguments."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))

    def command(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        importlib.import_module(name).main()

    return command


def test_every_kind_of_question_is_measured(run, saved, data, tmp_path):
    out = tmp_path / "found.json"
    run("seen_unseen", saved, "--passages", 8, "--ratio", 4, "--asked", 120, "--data-dir", data, "--out", out)
    found = json.loads(out.read_text())
    kinds = [row["questions"] for row in found["rows"]]
    assert kinds == ["people, trained on", "people, kept aside", "made, known to the readers",
                     "made, not known to the readers"]  # fmt: skip
    assert all(row["divergence"] > 0 and row["passages"] == 8 for row in found["rows"])


def test_slots_are_changed_until_the_passage_is_recalled_better(run, saved, data, tmp_path):
    out = tmp_path / "found.json"
    run("slot_capacity", saved, "llama", "--ratio", 4, "--passages", 2, "--steps", 2, "--every", 1, "--data-dir", data,
        "--out", out)  # fmt: skip
    found = json.loads(out.read_text())
    assert [figure["step"] for figure in found["figures"]] == [0, 1, 2]
    assert len({figure["divergence"] for figure in found["figures"]}) == 3


@pytest.mark.parametrize("name", ["seen_unseen", "slot_capacity"])
def test_without_data_it_says_what_is_missing(name, run, saved, tmp_path):
    with pytest.raises(SystemExit, match="error: "):
        run(name, saved, *(["llama"] if name == "slot_capacity" else []), "--data-dir", tmp_path)
