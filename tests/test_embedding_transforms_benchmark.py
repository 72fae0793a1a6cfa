"""Changes of a receiver's embeddings: each leaves what it says it leaves, and the page has the figures of the file."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from latentwire.types import Example

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TEXT = "Roald Amundsen arrived at the pole on 14 December 1911. The city has 1,204 inhabitants."
EXAMPLES = [
    Example("a-1", TEXT, "Who arrived?", ("Roald Amundsen",)),
    Example("a-2", TEXT[:55], "When did they arrive?", ("14 December 1911",)),
    Example("a-3", TEXT[56:], "How many people live there?", ("1,204",)),
]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("embedding_transforms")


@pytest.fixture
def transforms(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("embedding_transforms_kinds")


@pytest.fixture(scope="module")
def words():
    return F.normalize(torch.randn(60, 8, generator=torch.Generator().manual_seed(0)), dim=-1) * 2 + 0.3


def test_every_family_has_a_name_in_the_table(transforms, words, script):
    names = importlib.import_module("embedding_transforms_table").FAMILIES
    assert set(transforms.families(words)) == set(names)


def test_what_changes_nothing_is_the_table_itself(transforms, words):
    assert torch.allclose(transforms.neighbours(words, 1), words)
    assert torch.allclose(transforms.anchored(words, 1.0), words)
    assert torch.allclose(transforms.scaled(words, 1.0), words)
    assert torch.allclose(transforms.quantised(words, len(words)), words)


def test_the_anchor_is_the_nearest_other_token(transforms, words):
    cosine = F.cosine_similarity(words[:, None], words[None], dim=-1).fill_diagonal_(-1)
    other = words[cosine.argmax(-1)]
    assert torch.allclose(transforms.anchored(words, 0.0), other)
    assert torch.allclose(transforms.anchored(words, 0.25), other + 0.25 * (words - other), atol=1e-6)


def test_of_equal_embeddings_each_is_the_others_neighbour(transforms, words):
    twice = torch.cat([words, words])
    assert torch.allclose(transforms.anchored(twice, 0.0), twice)


def test_a_codebook_has_as_many_vectors_as_it_says_and_more_of_them_are_nearer(transforms, words):
    errors = []
    for size in (2, 8, 32):
        coded = transforms.quantised(words, size)
        assert len(coded.unique(dim=0)) == size
        errors.append(float((coded - words).norm()))
    assert errors == sorted(errors, reverse=True)


def test_a_text_is_standardised_by_its_own_tokens_whatever_the_batch(transforms, words):
    ids = torch.randint(0, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 5:] = False
    change = transforms.standardised(words, 2.0, 3.0)
    got = change(ids, mask)
    for row, length in ((0, 9), (1, 5)):
        inside = got[row, :length]
        assert torch.allclose(inside.mean(0), torch.full((8,), 2.0), atol=1e-4)
        assert torch.allclose(inside.std(0, correction=0), torch.full((8,), 3.0), atol=1e-4)
        alone = change(ids[row : row + 1, :length], mask[row : row + 1, :length])
        assert torch.allclose(alone[0], inside, atol=1e-5)


def test_the_sweep_asks_everything_of_every_receiver_and_goes_on_where_it_ended(
    script, tiny_wire, tmp_path, monkeypatch
):
    out = tmp_path / "found.json"
    found = script.sweep(tiny_wire, EXAMPLES, 0, out, smoke=True)
    assert json.loads(out.read_text()) == found
    rows = {(row["receiver"], row["family"], row["change"]): row for row in found["rows"]}
    for name in tiny_wire.receivers:
        mine = {family for receiver, family, _ in rows if receiver == name}
        # these vocabularies are smaller than any codebook
        assert mine == {"", "scale", "statistics", "nearest", "anchor"}
        text, replay = rows[name, "", "text"], rows[name, "", "replay-anchor"]
        assert replay["f1"] == text["f1"] and replay["nll"] == pytest.approx(text["nll"], abs=1e-3)
        moved = rows[name, "scale", "×0.25"]
        assert moved["cosine"] == pytest.approx(1, abs=1e-3) and moved["error"] == pytest.approx(0.75, abs=1e-3)
    found["rows"].pop()
    out.write_text(json.dumps(found))
    asked = []
    real = script.measure
    monkeypatch.setattr(script, "measure", lambda *a: asked.append(a) or real(*a))
    again = script.sweep(tiny_wire, EXAMPLES, 0, out, smoke=True)
    assert len(asked) == 1 and len(again["rows"]) == len(rows)
    # other questions are another sweep
    assert len(script.sweep(tiny_wire, EXAMPLES[:2], 0, out, smoke=True)["rows"]) == len(rows)
    assert len(asked) == 1 + len(rows)


def test_the_page_has_the_figures_of_the_file(script):
    page = script.PAGE.read_text(encoding="utf-8")
    found = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    assert script.fill(page, found) == page, "run python benchmarks/embedding_transforms.py --table"
    assert {row["n"] for row in found["rows"]} == {found["data"]["n"]}
    assert {row["receiver"] for row in found["rows"]} <= set(found["receivers"])
