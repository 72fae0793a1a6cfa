"""Vectors in place of tokens: replays are the text again, components keep to their bytes, means to their spans."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from latentwire.codecs import by_bits
from latentwire.conditions import Condition, Data
from latentwire.conditions.pca import components
from latentwire.conditions.vectors import Reader, Words
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.evaluation.runner import evaluate
from latentwire.injections.soft_tokens import SoftTokensConfig
from latentwire.link import LinkConfig
from latentwire.types import Example
from latentwire.wire import Wire, WireConfig

CONTEXTS = (
    "Roald Amundsen led the expedition to the South Pole. He arrived on 14 December 1911.",
    "The city has 1,204 inhabitants, a harbour and two schools.",
)
EXAMPLES = [
    Example("squad_v1-train-Pole-0-0", CONTEXTS[0], "Who led the expedition?", ("Roald Amundsen", "Amundsen")),
    Example("squad_v1-train-Pole-0-1", CONTEXTS[0], "When did he arrive at the pole, and on which day?", ("1911",)),
    Example("squad_v1-train-City-0-0", CONTEXTS[1], "How many?", ("1,204 inhabitants",)),
]
REPLAYS = ("replay-raw", "replay-anchor")


def own_wire(reader, injection, d_z=32):
    links = {reader.name: LinkConfig(receiver=str(reader), injection=injection)}
    encoder = LMEncoderConfig(d_z=d_z, ratios=(4,), window=64, init=str(reader))
    torch.manual_seed(0)
    return Wire.create(WireConfig(encoder, links), list(CONTEXTS)).eval()


@pytest.fixture(scope="module")
def soft(tiny_readers):
    """Wires that read soft tokens, one for each family."""
    return {name: own_wire(tiny_readers[name], SoftTokensConfig()) for name in ("llama", "qwen2", "gpt2", "gemma")}


def reader_of(wire, bits=16, ratio=4, mode="context", **given):
    name = wire.receivers[0]
    receiver = wire.get_receiver(name)
    tokens = [len(ids) for ids in receiver.prompt.context_ids(list(CONTEXTS))]
    words = Words.of(receiver, list(CONTEXTS))
    return Reader(receiver, wire.links[name], 32, mode, lambda: words, by_bits(bits), tokens, [], ratio, **given)


def make(name: str, reader: Reader):
    return Condition.known()[name]().maker(reader)


def ids_of(wire):
    return wire.get_receiver(wire.receivers[0]).prompt.context_ids(list(CONTEXTS))


@pytest.mark.parametrize("mode", ["context", "prompt"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "gemma"])
def test_replays_say_what_the_text_says(soft, family, mode, tmp_path):
    """Families scale embeddings (gemma) and add positions (gpt2) behind the table: neither may happen twice."""
    long = [*EXAMPLES, dataclasses.replace(EXAMPLES[0], id="long", context=CONTEXTS[0] * 12)]
    results = evaluate(
        soft[family], long, conditions=("text", *REPLAYS), mode=mode, out=tmp_path, progress=False, batch_size=2
    )
    text, *replays = results["rows"]
    assert text["cut"] == 1 and text["nll"] > 0
    for row in replays:
        assert row["nll"] == pytest.approx(text["nll"], abs=2e-4)
        for name in ("em", "f1", "first_token", "positions", "bytes", "cut"):
            assert row[name] == text[name], name
        assert row["own_ratio"] == 1
    # the whole prompt but for the head and the last token, and in prompt mode all but head and anchor
    raw, anchored = replays
    head = len(soft[family].get_receiver(family).prompt.head_ids())
    assert raw["kv_positions"] == pytest.approx(text["positions"] - head - 1)
    assert (anchored["kv_positions"] == text["kv_positions"]) == (mode == "context")


def test_replays_through_the_link_are_its_reading_of_a_latent_for_each_token(soft, tiny_wire):
    row = evaluate(soft["llama"], EXAMPLES, conditions=("replay-adapter", "text"), progress=False)["rows"]
    assert row[0]["na"] is None and row[0]["kv_positions"] == row[1]["kv_positions"]
    assert row[0]["nll"] != row[1]["nll"]
    reader = reader_of(soft["llama"])
    prefix = make("replay-adapter", reader).prefix(ids_of(soft["llama"]))
    head = reader.receiver.head().mask_BM.shape[1]
    # the question stands where it would stand behind the text
    assert prefix.next_B.tolist() == [head + count for count in reader.tokens]


def test_what_a_link_cannot_replay_is_told(tiny_readers, tiny_wire):
    (row, _) = evaluate(tiny_wire, EXAMPLES, conditions=["replay-adapter"], progress=False)["rows"]
    assert row["f1"] is None and "no soft tokens" in row["na"]
    narrow = own_wire(tiny_readers["llama"], SoftTokensConfig(), d_z=16)
    (row,) = evaluate(narrow, EXAMPLES, conditions=["replay-adapter"], progress=False)["rows"]
    assert "latents of width 16" in row["na"] and "have 32" in row["na"]


@pytest.mark.parametrize("bits", [16, 4])
def test_pca_takes_all_components_that_the_bytes_hold_and_no_more(soft, bits):
    wire = soft["llama"]
    packets = [packet.size(bits) for packet in wire.encode(list(CONTEXTS), 4)]
    reader = dataclasses.replace(reader_of(wire, bits), room=packets)
    count = components(reader)
    assert 0 < count < 32

    def nbytes(width):
        return sum(32 + reader.codec.nbytes(n, width) for n in reader.tokens)

    assert nbytes(count) <= sum(packets) < nbytes(count + 1)
    row = evaluate(wire, EXAMPLES[1:], conditions=["pca"], bits=(bits,), progress=False)["rows"][0]
    assert row["bytes"] == pytest.approx(nbytes(count) / 2, abs=0.05)


def test_pca_of_full_width_is_the_embedding_again(soft):
    reader = dataclasses.replace(reader_of(soft["gemma"]), room=[10**6])
    maker = make("pca", reader)
    assert maker.width == 32
    ids = torch.tensor([ids_of(soft["gemma"])[0]])
    embeds = reader.receiver.embed(ids)
    vectors, _, _ = maker.vectors(embeds, torch.ones_like(ids, dtype=torch.bool))
    assert (vectors - embeds).norm() / embeds.norm() < 1e-3
    few = make("pca", dataclasses.replace(reader, room=[sum(64 + 2 * 8 * n for n in reader.tokens)]))
    error = (few.vectors(embeds, torch.ones_like(ids, dtype=torch.bool))[0] - embeds).norm() / embeds.norm()
    assert 0.05 < error < 1


def test_pca_without_room_does_not_apply(soft):
    data = Data([], [], [], dataclasses.replace(reader_of(soft["llama"]), room=[40, 40]))
    assert "no room" in Condition.known()["pca"]().not_applicable(data)


def test_means_stand_in_the_middle_of_their_spans_in_the_embeddings_scale(soft):
    reader = reader_of(soft["llama"])
    maker = make("mean-pooled", reader)
    embeds = torch.randn(2, 10, 32)
    mask = torch.arange(10) < torch.tensor([10, 5])[:, None]
    vectors, kept, places = maker.vectors(embeds, mask)
    assert kept.tolist() == [[True, True, True], [True, True, False]]
    assert places[0].tolist() == [1, 5, 8] and places[1, :2].tolist() == [1, 4]
    assert vectors[kept].square().mean(-1).sqrt().tolist() == pytest.approx([reader.words().rms] * 5, rel=1e-3)
    # a direction that is that of the mean of the span's own tokens
    assert torch.cosine_similarity(vectors[0, 2], embeds[0, 8:].mean(0), dim=0) > 0.9999
    assert torch.cosine_similarity(vectors[1, 1], embeds[1, 4], dim=0) > 0.9999
    assert maker.positions(10) == 3 and maker.nbytes(10) == 32 + 3 * 32 * 2


def test_means_are_one_position_for_each_span(soft):
    for family, mode in (("gpt2", "context"), ("llama", "prompt")):
        wire = soft[family]
        (row,) = evaluate(wire, EXAMPLES[1:], conditions=["mean-pooled"], bits=(8,), mode=mode, progress=False)["rows"]
        prompt = wire.get_receiver(family).prompt
        counts = [len(ids) for ids in prompt.context_ids([e.context for e in EXAMPLES[1:]])]
        if mode == "prompt":
            anchor = len(prompt.anchor_ids())
            asked = prompt.question_ids([e.question for e in EXAMPLES[1:]])
            counts = [n + len(q) - anchor for n, q in zip(counts, asked, strict=True)]
        assert row["kv_positions"] == sum(-(-n // 4) for n in counts) / 2
        assert row["bytes"] == sum(32 + by_bits(8).nbytes(-(-n // 4), 32) for n in counts) / 2


def test_vectors_are_multiplied_by_the_gain_and_replays_are_not(soft):
    reader = dataclasses.replace(reader_of(soft["llama"]), room=[10**6])
    embeds, mask = torch.randn(1, 8, 32), torch.ones(1, 8, dtype=torch.bool)
    for name, factor in (("pca", 2.0), ("mean-pooled", 2.0), ("replay-raw", 1.0)):
        plain = make(name, reader).vectors(embeds, mask)[0]
        loud = make(name, dataclasses.replace(reader, gain=2.0)).vectors(embeds, mask)[0]
        torch.testing.assert_close(loud, factor * plain)
