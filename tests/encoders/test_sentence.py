"""Sentence encoders inside: what they read, that they stay frozen, and that no text is cut."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.masking_utils
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from conftest import WORDS, tiny_bert
from contracts.matrix import config
from latentwire.config import decode
from latentwire.encoders import EncoderConfig
from latentwire.encoders.sentence_model import SentenceModel
from latentwire.errors import UserError
from latentwire.link import LinkConfig
from latentwire.wire import Wire, WireConfig
from training.test_graphs import NothingWaits

FROZEN = ("sentence", "sentence-tokens", "aligned")
SENTENCES = ["Roald Amundsen led it.", "How many people live there? The city has inhabitants.", "Oslo!"]


def theirs(directory) -> tuple[Any, Any]:
    """Tokenizer and model as transformers itself loads them."""
    return AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()


def vectors(directory, texts) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What transformers makes of texts one by one: mean over all tokens, and states of the texts' own tokens."""
    tokenizer, model = theirs(directory)
    means, states = [], []
    for text in texts:
        with torch.no_grad():
            found = model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0]
        means.append(found.mean(0))
        states.append(found[1:-1])
    return torch.stack(means), states


def read(directory, texts, pool="mean"):
    torch.manual_seed(0)
    tree = {"type": "sentence", "init": str(directory), "pool": pool, "window": 64}
    encoder: Any = decode(EncoderConfig, tree).build().eval()
    arrays = encoder.prepare(texts).arrays
    return encoder.sentences(torch.from_numpy(arrays["ids"]).long(), torch.from_numpy(arrays["count"]).long())


def test_states_and_mean_are_those_of_the_encoder_itself_text_by_text(tiny_readers):
    states, vector = read(tiny_readers["bert"], SENTENCES)
    means, alone = vectors(tiny_readers["bert"], SENTENCES)
    torch.testing.assert_close(vector, torch.nn.functional.normalize(means, dim=-1) * 32**0.5, atol=1e-4, rtol=1e-4)
    for row, expected in enumerate(alone):
        torch.testing.assert_close(states[row, : len(expected)], expected, atol=1e-4, rtol=1e-4)
        assert not states[row, len(expected) :].any()


def test_the_pooler_is_the_encoders_own(tiny_readers):
    _, vector = read(tiny_readers["bert"], SENTENCES[:1], pool="pooler")
    tokenizer, model = theirs(tiny_readers["bert"])
    with torch.no_grad():
        expected = model(torch.tensor([tokenizer(SENTENCES[0])["input_ids"]])).pooler_output
    torch.testing.assert_close(vector, torch.nn.functional.normalize(expected, dim=-1) * 32**0.5)


def test_places_of_roberta_begin_behind_its_pad(tiny_readers, tmp_path):
    from transformers import RobertaConfig, RobertaModel

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = RobertaModel(RobertaConfig(**shape, vocab_size=500, max_position_embeddings=98, pad_token_id=1))
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_readers["bert"]).save_pretrained(tmp_path)
    sentences = SentenceModel(str(tmp_path), None)
    assert sentences.room == 94  # 98, less two places that it has no token for, [CLS] and [SEP]
    ids = torch.full((1, 96), 7)
    assert sentences(ids, torch.tensor([94]))[0].shape == (1, 94, 32)


@pytest.mark.parametrize("name", FROZEN)
def test_it_never_learns_and_never_drops_anything(tiny_readers, tmp_path, name):
    bert = tiny_bert(tmp_path / "bert", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    key = "anchor" if name == "aligned" else "init"
    encoder = config(EncoderConfig, name, tiny_readers, **{key: str(bert)}).build().train()
    assert not [p for p in encoder.sentences.parameters() if p.requires_grad]
    source = encoder.prepare([WORDS[:90]])
    first, second = (encoder.encode(source, 4).z_BMD for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("name", [*FROZEN, "byte with private latents", "lm, a fixed number", "lm by LoRA"])
def test_a_step_through_it_waits_for_nothing(tiny_readers, monkeypatch, name):
    # transformers looks into a mask to leave it out where nothing is masked, but not while a graph is recorded
    monkeypatch.setattr(transformers.masking_utils, "is_tracing", lambda tensor=None: True)
    encoder = config(EncoderConfig, name, tiny_readers).build().train()
    arrays = encoder.prepare([WORDS[:40], "A"], 64).arrays
    batch = {key: torch.from_numpy(value) for key, value in arrays.items()}
    with NothingWaits():
        encoder.part(encoder(batch, 4), "one").z_BMD.square().sum().backward()


@pytest.mark.parametrize("name", FROZEN)
def test_a_long_text_is_read_to_its_end(tiny_readers, name):
    encoder = config(EncoderConfig, name, tiny_readers).build().eval()
    text = WORDS * 3
    source = encoder.prepare([text])
    pieces, counts = source.arrays["ids"], source.arrays["count"]
    begin = len(encoder.begin)
    joined = [i for row, n in zip(pieces, counts, strict=True) for i in row[begin : begin + n].tolist()]
    assert joined == encoder.tokenizer(f"{encoder.lead}{text}", add_special_tokens=False)["input_ids"]
    assert len(counts) > 1 and counts.max() <= 64
    if name != "aligned":
        assert all(row[0] == 2 and row[1 + n] == 3 for row, n in zip(pieces, counts, strict=True)), "[CLS] … [SEP]"


def test_a_window_that_it_cannot_read_is_refused(tiny_readers):
    with pytest.raises(UserError, match="window is 95 tokens, the sentence encoder reads 94 at most"):
        config(EncoderConfig, "sentence", tiny_readers, window=95).build()
    config(EncoderConfig, "sentence", tiny_readers, window=94).build()


def test_one_vector_reaches_every_slot_and_places_tell_them_apart(tiny_readers):
    torch.manual_seed(0)
    encoder = config(EncoderConfig, "sentence", tiny_readers).build().eval()
    latents = encoder.encode(encoder.prepare([WORDS[:60], WORDS[100:160]]), 4)
    plain = latents.z_BMD[0] - latents.z_BMD[1]
    n = int(latents.count_B.min())
    # before normalising, two texts differ by the same vector in every slot
    assert torch.nn.functional.cosine_similarity(plain[:1], plain[1:n]).min() > 0.8
    assert (latents.z_BMD[0, :n].diff(dim=0).abs().amax(-1) > 1e-2).all()


def test_the_slots_of_sentence_tokens_know_what_stands_where(tiny_readers):
    """Swapping two halves of a text leaves the bag of words, and moves the latents."""
    torch.manual_seed(0)
    encoder = config(EncoderConfig, "sentence-tokens", tiny_readers).build().eval()
    with torch.no_grad():
        encoder.gate.bias.fill_(-20.0)
        shut = encoder.encode(encoder.prepare(["Amundsen led it", "five weeks before"]), 4).z_BMD
        torch.testing.assert_close(shut[0], shut[1], atol=1e-3, rtol=0)
        encoder.gate.bias.fill_(0.0)
        one, other = encoder.encode(encoder.prepare(["Amundsen led Scott", "Scott led Amundsen"]), 4).z_BMD
    assert (one - other).abs().max() > 1e-3, "a closed gate leaves the bias alone, an open one the text"


@pytest.mark.parametrize("name", FROZEN)
def test_a_wire_holds_its_frozen_encoder_whole(tiny_readers, tmp_path, name):
    bert = shutil.copytree(tiny_readers["bert"], tmp_path / "bert")
    key = "anchor" if name == "aligned" else "init"
    encoder = config(EncoderConfig, name, tiny_readers, **{key: str(bert)})
    wire = Wire.create(WireConfig(encoder, {"llama": LinkConfig(str(tiny_readers["llama"]))}), [WORDS]).eval()
    wire.save_pretrained(tmp_path / "wire")
    shutil.rmtree(bert)
    again = Wire.from_pretrained(tmp_path / "wire")
    assert again.encode([WORDS])[0].to_bytes() == wire.encode([WORDS])[0].to_bytes()
    assert not [p for p in again.encoder.sentences.parameters() if p.requires_grad]
    assert not [key for key in again.state_dict() if "sentences.model.pooler" in key]
    path = tmp_path / "wire" / "model.safetensors"
    state = load_file(path)
    frozen = next(key for key in state if "sentences.model" in key and key.endswith("query.weight"))
    save_file(state | {frozen: state[frozen] + 0.1}, path)
    with pytest.raises(UserError, match="not those its config names"):
        Wire.from_pretrained(tmp_path / "wire")


def test_weights_that_would_be_random_are_refused(tiny_readers, tmp_path):
    bert = shutil.copytree(tiny_readers["bert"], tmp_path / "bert")
    state = load_file(bert / "model.safetensors")
    save_file({key: v for key, v in state.items() if "pooler" not in key}, bert / "model.safetensors", {"format": "pt"})
    read(bert, SENTENCES)  # the mean needs none
    with pytest.raises(UserError, match=r"lacks weights \(pooler.dense.bias"):
        read(bert, SENTENCES, pool="pooler")
    save_file(
        {key: v for key, v in state.items() if "layer.1" not in key}, bert / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UserError, match="would have been random"):
        read(bert, SENTENCES)


def test_what_is_no_sentence_encoder_is_refused(tiny_readers, tmp_path):
    from transformers import T5Config

    with pytest.raises(UserError, match="mean or pooler, not 'cls'"):
        read(tiny_readers["bert"], SENTENCES, pool="cls")
    with pytest.raises(UserError, match="has no pooler"):
        read(tiny_readers["llama"], SENTENCES, pool="pooler")
    AutoTokenizer.from_pretrained(tiny_readers["bert"]).save_pretrained(tmp_path)
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="an encoder with a decoder"):
        read(tmp_path, SENTENCES)


@pytest.mark.skipif("LATENTWIRE_MINILM" not in os.environ, reason="LATENTWIRE_MINILM names no directory of a MiniLM")
def test_a_real_minilm_finds_the_sentence_that_means_the_same():
    directory = Path(os.environ["LATENTWIRE_MINILM"])
    texts = ["The ship sank in a storm.", "Bread is baked in an oven.", "The vessel went down in heavy weather."]
    _, vector = read(directory, texts)
    means, _ = vectors(directory, texts)
    same = torch.nn.functional.cosine_similarity(vector, means)
    torch.testing.assert_close(same, torch.ones(3), atol=1e-4, rtol=0)
    close = torch.nn.functional.cosine_similarity(vector[2:], vector[:2])
    assert close[0] > close[1] + 0.2
