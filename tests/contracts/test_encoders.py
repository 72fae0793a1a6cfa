"""What every encoder promises."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.matrix import D_Z, ENCODERS, NEEDS, config
from latentwire.encoders import EncoderConfig
from latentwire.errors import UserError

TEXTS = ["Roald Amundsen led it.", "He and four others arrived at the pole on 14 December 1911. 東京 took note.", "A"]


@pytest.fixture(params=ENCODERS)
def encoder(request, tiny_readers):
    torch.manual_seed(0)
    return config(EncoderConfig, request.param, tiny_readers).build().eval()


@torch.no_grad()
def encode(encoder, texts, ratio=4):
    return encoder.encode(encoder.prepare(texts), ratio)


@pytest.mark.parametrize("ratio", [4, 8])
def test_one_latent_for_every_ratio_tokens_or_of_a_full_window(encoder, ratio):
    latents = encode(encoder, TEXTS, ratio)
    fixed = getattr(encoder.config, "fixed", False)
    read = [encoder.config.window] * 3 if fixed else latents.source_B.tolist()
    assert latents.count_B.tolist() == [-(-n // ratio) for n in read]
    assert latents.z_BMD.shape == (*latents.mask_BM.shape, D_Z)
    assert latents.ratio_B.tolist() == [ratio] * 3


def test_latents_have_zero_mean_and_unit_variance_and_pads_are_zero(encoder):
    latents = encode(encoder, TEXTS)
    real = latents.z_BMD[latents.mask_BM]
    torch.testing.assert_close(real.mean(-1), torch.zeros(len(real)), atol=1e-4, rtol=0)
    torch.testing.assert_close(real.var(-1, unbiased=False), torch.ones(len(real)), atol=2e-2, rtol=0)
    assert latents.z_BMD[~latents.mask_BM].abs().sum() == 0


def test_a_text_has_the_same_latents_alone_and_among_longer_ones(encoder):
    together = encode(encoder, TEXTS)
    for place, text in enumerate(TEXTS):
        alone = encode(encoder, [text])
        count = int(alone.count_B[0])
        torch.testing.assert_close(together.z_BMD[place, :count], alone.z_BMD[0, :count], atol=1e-4, rtol=1e-4)


def test_a_text_beyond_the_window_is_encoded_in_pieces_to_its_end(encoder):
    text = " ".join(f"letter {i} went to Oslo" for i in range(80))
    source = encoder.prepare([text, TEXTS[0]])
    assert (source.owner_P == 0).sum() > 1
    whole = encode(encoder, [text])
    other = encode(encoder, [text + "!!"])
    assert int(whole.source_B[0]) == int(source.arrays["count"][source.owner_P == 0].sum())
    assert not torch.equal(whole.z_BMD[0, -1], other.z_BMD[0, -1]), "the end of the text reaches no latent"


def test_fixed_width_changes_shapes_alone(encoder):
    short = [TEXTS[0], TEXTS[2]]
    free, fixed = encoder.prepare(short), encoder.prepare(short, 64)
    batch = {name: torch.from_numpy(array) for name, array in fixed.arrays.items()}
    with torch.no_grad():
        latents = encoder(batch, 4)
    expected = encoder.encode(free, 4)
    got, M = latents.z_BMD, expected.z_BMD.shape[1]
    torch.testing.assert_close(got[:, :M], expected.z_BMD, atol=1e-4, rtol=1e-4)
    assert got[:, M:].abs().sum() == 0


def test_gradients_reach_every_weight_that_learns(encoder):
    source = encoder.prepare(TEXTS)
    learning = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    for ratio in encoder.config.ratios:
        z = encoder.encode(source, ratio).z_BMD
        assert z.requires_grad == bool(learning), "what is fitted has no gradient, what learns has one"
        if learning:
            (z * torch.randn(z.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    dead = [name for name, p in learning.items() if p.grad is None or not p.grad.isfinite().all()]
    assert dead == []
    assert [name for name, p in encoder.named_parameters() if not p.requires_grad and p.grad is not None] == []


def test_saved_and_built_again_it_encodes_the_same(encoder, tmp_path):
    encoder.save_assets(tmp_path)
    save_file({k: v.contiguous() for k, v in encoder.state_dict().items()}, tmp_path / "weights.safetensors")
    again = encoder.config.build(tmp_path).eval()
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    torch.testing.assert_close(encode(again, TEXTS).z_BMD, encode(encoder, TEXTS).z_BMD)


def test_ratios_it_was_not_made_for_and_empty_texts_are_refused(encoder):
    with pytest.raises(UserError, match="4, 8"):
        encode(encoder, TEXTS, 5)
    with pytest.raises(UserError, match="empty"):
        encoder.prepare(["something", ""])


@pytest.mark.parametrize("name", [name for name in EncoderConfig.known() if "init" in NEEDS.get(name, {})])
def test_an_encoder_that_starts_from_a_model_says_so_where_there_is_none(tiny_readers, tmp_path, name):
    with pytest.raises(UserError, match="init is empty"):
        config(EncoderConfig, name, tiny_readers, init="").build()
    with pytest.raises(UserError, match=r"cannot start the encoder from .*nowhere"):
        config(EncoderConfig, name, tiny_readers, init=str(tmp_path / "nowhere")).build()


@pytest.mark.parametrize("field", ["init", "lexicons"])
def test_a_checkpoint_that_is_not_there_is_refused_by_its_name(tiny_readers, tmp_path, field):
    nowhere = str(tmp_path / "nowhere")
    encoder = config(EncoderConfig, "lm", tiny_readers)
    setattr(encoder, field, nowhere if field == "init" else [nowhere])
    with pytest.raises(UserError, match=r"cannot start the encoder from .*nowhere"):
        encoder.build()


def test_more_layers_than_there_are_are_refused(tiny_readers):
    with pytest.raises(UserError, match="has 2 layers; the encoder cannot keep 9"):
        config(EncoderConfig, "lm", tiny_readers, layers=9).build()
