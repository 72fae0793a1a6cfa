"""Principal components: of what they are, and that what refines them starts as them."""

from __future__ import annotations

import pytest
import torch

from conftest import WORDS
from contracts.matrix import config
from latentwire.encoders import EncoderConfig
from latentwire.encoders.pca import Components
from latentwire.encoders.tokens import load_words
from latentwire.errors import UserError
from latentwire.link import LinkConfig
from latentwire.wire import Wire, WireConfig


def test_all_components_are_the_embeddings_again(tiny_readers):
    words = load_words(tiny_readers["gemma"])
    for whiten in (False, True):
        fitted = Components.fit(words, torch.ones(len(words)), 99, whiten)
        assert fitted.table_VC.shape == words.shape
        ids = torch.arange(len(words))[None]
        torch.testing.assert_close(fitted.embeddings(fitted(ids))[0], words, atol=1e-4, rtol=1e-4)


def test_few_components_are_the_widest_ones():
    torch.manual_seed(0)
    words = torch.randn(400, 12) * torch.arange(12, 0, -1) + 3
    fitted = Components.fit(words, torch.ones(400), 4, whiten=False)
    lost = (words - fitted.embeddings(fitted.table_VC)).square().sum()
    values = torch.linalg.svdvals(words - words.mean(0))
    torch.testing.assert_close(lost, values[4:].square().sum(), rtol=1e-3, atol=0)
    torch.testing.assert_close(fitted.table_VC.square().mean(), torch.tensor(1.0))
    whitened = Components.fit(words, torch.ones(400), 4, whiten=True).table_VC
    torch.testing.assert_close(whitened.mT @ whitened / 400, torch.eye(4), atol=1e-4, rtol=0)


def test_a_sample_says_how_much_each_word_counts(tiny_readers, tmp_path):
    sample = tmp_path / "sample.txt"
    sample.write_text(WORDS)
    encoder = config(EncoderConfig, "pca", tiny_readers, sample=str(sample)).build()
    ids = torch.tensor(encoder.tokenizer(WORDS, add_special_tokens=False)["input_ids"])
    torch.testing.assert_close(encoder.components(ids).mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    plain = config(EncoderConfig, "pca", tiny_readers).build()
    torch.testing.assert_close(plain.components.table_VC.mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    sample.write_text(" \n")
    with pytest.raises(UserError, match=r"sample.txt holds no text"):
        config(EncoderConfig, "pca", tiny_readers, sample=str(sample)).build()


def test_at_ratio_one_a_latent_is_one_token(tiny_readers):
    encoder = config(EncoderConfig, "pca", tiny_readers, ratios=[1, 4]).build()
    source = encoder.prepare([WORDS[:70]])
    one, four = encoder.encode(source, 1), encoder.encode(source, 4)
    words = encoder.components(torch.from_numpy(source.arrays["ids"]).long())
    torch.testing.assert_close(one.z_BMD, torch.nn.functional.layer_norm(words, (16,)))
    first = torch.nn.functional.layer_norm(words[:, :4].mean(1), (16,))
    torch.testing.assert_close(four.z_BMD[:, 0], first)


def test_more_latent_width_than_components_is_filled_with_nothing(tiny_readers):
    tree = config(EncoderConfig, "pca", tiny_readers)
    tree.d_z = 48
    z = tree.build().encode(tree.build().prepare([WORDS[:70]]), 4).z_BMD
    assert z.shape[-1] == 48
    assert (z[..., 32:] == z[..., 32:33]).all()


def test_untrained_refinement_is_pca(tiny_readers):
    texts = [WORDS[:70], "A"]
    refined = config(EncoderConfig, "pca-refined", tiny_readers, components=20).build()
    plain = config(EncoderConfig, "pca", tiny_readers).build()
    got, expected = (encoder.encode(encoder.prepare(texts), 4) for encoder in (refined, plain))
    # components are scaled by their mean variance, which is another one for another number of them: z is not
    torch.testing.assert_close(got.z_BMD, expected.z_BMD, atol=1e-3, rtol=1e-3)


def test_a_wire_whose_encoder_has_nothing_to_train_is_saved_and_loaded(tiny_readers, tmp_path):
    encoder = config(EncoderConfig, "pca", tiny_readers)
    wire = Wire.create(WireConfig(encoder, {"llama": LinkConfig(str(tiny_readers["llama"]))}), [WORDS]).eval()
    assert not list(wire.encoder.parameters())
    wire.save_pretrained(tmp_path)
    again = Wire.from_pretrained(tmp_path)
    assert again.encode([WORDS])[0].to_bytes() == wire.encode([WORDS])[0].to_bytes()
