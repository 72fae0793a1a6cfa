"""Figures of many vectors, and of slots beside what a receiver knows: what they must say where the truth is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from conftest import WORDS
from latentwire import cli
from latentwire.injections import InjectionConfig
from latentwire.link import Link, LinkConfig
from latentwire.readback.clouds import beside, norms, spectrum
from latentwire.readback.embeddings import BATCH, diagnose, evenly, others
from latentwire.readback.vocabulary import nearest, vocabulary
from latentwire.receivers.receiver import pad

TEXTS = [WORDS[:150], WORDS[60:260], WORDS[100:140], "The city has 1,204 inhabitants."]


@pytest.fixture
def with_injection(tiny_wire, monkeypatch):
    """The tiny wire with its `llama` reading in another way."""

    def made(kind: str):
        receiver = tiny_wire.get_receiver("llama")
        link = Link(LinkConfig(injection=InjectionConfig.known()[kind]()), 32, receiver)
        link.calibrate(receiver, [WORDS], 60)
        monkeypatch.setitem(tiny_wire.links._modules, "llama", link)
        return tiny_wire

    return made


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 1000))
def test_rank_counts_directions_of_equal_width(directions, seed):
    axes = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)))[0][:directions]
    found = spectrum(torch.cat([axes, -axes]) + 3.0)
    assert found["rank"] == pytest.approx(directions, rel=1e-4)
    assert found["first"]["1"] == pytest.approx(1 / directions, rel=1e-4)
    assert found["first"]["8"] == pytest.approx(min(8 / directions, 1), rel=1e-4)


def test_rank_is_the_same_for_few_vectors_and_for_many():
    few = torch.randn(6, 20, generator=torch.Generator().manual_seed(0))
    # each twice: more rows than channels, the same covariance but for its size
    many = few.repeat(10, 1)
    assert spectrum(few)["rank"] == pytest.approx(spectrum(many)["rank"], rel=1e-5)
    assert spectrum(few)["rank"] <= 5.0001


def test_vectors_that_spread_nowhere_have_no_rank():
    assert spectrum(torch.ones(1, 4))["rank"] == 0
    assert not any(math.isnan(value) for value in beside(torch.ones(1, 4), torch.ones(1, 4)).values())


def test_norms_are_quantiles_of_lengths():
    found = norms(torch.diag(torch.arange(1.0, 102.0)))
    assert [round(value) for value in found.values()] == [6, 26, 51, 76, 96]


def test_apart_and_spread_are_in_units_of_the_text():
    text = torch.tensor([[-1.0, 0], [1, 0]])
    found = beside(3 * text + torch.tensor([0.0, 5]), text)
    assert found == pytest.approx({"apart": 5, "spread": 3})


def test_nearest_agrees_with_every_cosine(tiny_wire):
    words = vocabulary(tiny_wire.get_receiver("qwen2"))
    some = torch.randn(5, words.shape[1], generator=torch.Generator().manual_seed(0))
    every = F.cosine_similarity(some[:, None], words[None], dim=-1)
    cosine, ids = nearest(some, words, 3)
    assert torch.allclose(cosine, every.topk(3, -1).values, atol=1e-5)
    assert torch.equal(ids, every.topk(3, -1).indices)


def test_a_token_is_not_its_own_neighbour():
    words = torch.tensor([[1.0, 0], [1, 0], [0, 1]])  # two of them alike
    assert others(words, words, None).tolist() == pytest.approx([1, 1, 0], abs=1e-6)
    assert others(words[2:], words, torch.tensor([2])).tolist() == pytest.approx([0], abs=1e-6)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40)), min_size=1, max_size=4))
def test_evenly_takes_as_many_as_are_asked_for_or_all(rows):
    mask, _ = pad([[1] * length for length, _ in rows], 0, "cpu")
    took = evenly(mask, torch.tensor([count for _, count in rows]))
    assert took.sum(-1).tolist() == [min(length, count) for length, count in rows]
    assert not (took & ~mask).any()


@pytest.mark.parametrize("kind", sorted(InjectionConfig.known()))
def test_every_injection_is_described(with_injection, kind):
    wire = with_injection(kind)
    found = diagnose(wire, "llama", TEXTS, 4)
    link = wire.links["llama"]
    assert ("soft tokens" in found["embeddings"]) == link.injection.reads
    assert bool(found["layers"]) == (kind != "cross-attention")
    for layer in found["layers"]:
        for each in ("keys", "values"):
            assert layer[each]["made"]["n"] > 0
            assert all(math.isfinite(layer[each][key]) for key in ("apart", "spread"))
    assert found["embeddings"]["vocabulary"]["n"] == len(wire.get_receiver("llama").tokenizer)
    json.dumps(found)


def test_keys_and_values_of_the_text_itself_are_told_to_be_those_of_the_text(with_injection, monkeypatch):
    """A link that gives a text's own embeddings, one for each token, makes what the text makes."""
    wire = with_injection("soft-tokens")
    receiver, link = wire.get_receiver("llama"), wire.links["llama"]
    ids = receiver.prompt.context_ids(TEXTS)
    mask, ids_BT = pad(ids, receiver.prompt.pad_id, receiver.device)
    real = wire.encoder.encode

    def encode(*a, **k):
        latents = real(*a, **k)
        count = mask.sum(-1)
        return replace(latents, z_BMD=receiver.embed(ids_BT), mask_BM=mask, source_B=count, ratio_B=count // count)

    monkeypatch.setattr(wire.encoder, "encode", encode)
    monkeypatch.setattr(link.adapter, "forward", lambda latents, mode, slots: latents.z_BMD)
    monkeypatch.setattr(link.injection, "vectors", lambda slots: slots)
    link.fertility.fill_(1.0)
    found = diagnose(wire, "llama", TEXTS, 4)
    soft, text = found["embeddings"]["soft tokens"], found["embeddings"]["text"]
    assert {key: soft[key] for key in ("n", "norm")} == {key: text[key] for key in ("n", "norm")}
    assert soft["nearest"]["5 %"] == pytest.approx(1, abs=1e-5)
    assert soft["in_text"] == 1
    for layer in found["layers"]:
        for kind in ("keys", "values"):
            assert layer[kind]["apart"] == pytest.approx(0, abs=1e-3)
            assert layer[kind]["spread"] == pytest.approx(1, abs=1e-3)
            assert layer[kind]["made"]["rank"] == pytest.approx(layer[kind]["text"]["rank"], rel=1e-3)


def test_batches_change_nothing(tiny_wire, monkeypatch):
    texts = TEXTS * (BATCH // len(TEXTS) + 1)
    whole = diagnose(tiny_wire, "qwen2", texts, 4)
    monkeypatch.setattr("latentwire.readback.embeddings.BATCH", 3)
    parts = diagnose(tiny_wire, "qwen2", texts, 4)
    assert parts["layers"][1]["keys"]["apart"] == pytest.approx(whole["layers"][1]["keys"]["apart"], rel=1e-3)
    assert parts["embeddings"]["text"]["rank"] == pytest.approx(whole["embeddings"]["text"]["rank"], rel=1e-6)


def test_the_command_shows_and_writes_the_same(with_injection, tmp_path, capsys, monkeypatch):
    wire = with_injection("soft-tokens")
    monkeypatch.setattr("latentwire.commands.embeddings.open_wire", lambda name: wire)
    (tmp_path / "my.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    words = ["embeddings", "some", "--text", str(tmp_path / "my.txt"), "--n", "3", "-r", "llama"]
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["texts"], found["ratio"]) == (3, 4)
    (read,) = found["receivers"]
    assert cli.main(words) == 0
    page = capsys.readouterr().out
    assert f"{read['embeddings']['soft tokens']['rank']:.1f}" in page
    assert f"{read['layers'][0]['keys']['apart']:.2f}" in page
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(words) == 0
    assert "…" not in capsys.readouterr().out  # every figure has room


def test_a_ratio_that_the_wire_has_not_is_refused(with_injection, capsys, monkeypatch):
    monkeypatch.setattr("latentwire.commands.embeddings.open_wire", lambda name: with_injection("kv-prefix"))
    assert cli.main(["embeddings", "some", "--ratio", "5"]) == 2
    assert "no ratio 5" in capsys.readouterr().err
