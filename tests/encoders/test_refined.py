"""A refiner and latent dropout behind an encoder."""

from __future__ import annotations

import pytest
import torch

from conftest import WORDS
from contracts.matrix import config
from latentwire.config import decode, encode
from latentwire.encoders import EncoderConfig
from latentwire.errors import UserError
from latentwire.link import LinkConfig
from latentwire.wire import Wire, WireConfig

TEXTS = [WORDS[i : i + 120] for i in range(0, 160, 20)]


def build(tiny_readers, **changes):
    torch.manual_seed(0)
    return config(EncoderConfig, "refined", tiny_readers, **changes).build()


def dropped(encoder, batch):
    """Share of the real latents that are zero."""
    latents = encoder(batch, 4)
    return float((latents.z_BMD.abs().sum(-1) == 0)[latents.mask_BM].float().mean())


def batch_of(encoder):
    return {name: torch.from_numpy(array) for name, array in encoder.prepare(TEXTS).arrays.items()}


def test_untrained_it_is_the_encoder_inside(tiny_readers):
    encoder = build(tiny_readers).eval()
    batch = batch_of(encoder)
    torch.testing.assert_close(encoder(batch, 8).z_BMD, encoder.inner(batch, 8).z_BMD, atol=1e-3, rtol=1e-3)
    with torch.no_grad():
        for block in encoder.blocks:
            torch.nn.init.normal_(block.out.weight)
    changed = encoder(batch, 8)
    assert not torch.allclose(changed.z_BMD, encoder.inner(batch, 8).z_BMD, atol=1e-2)
    assert changed.z_BMD[~changed.mask_BM].abs().sum() == 0


def test_latents_are_dropped_whole_in_training_alone_and_the_others_stay_as_they_are(tiny_readers):
    encoder = build(tiny_readers, keep=0.7, layers=0)
    batch = batch_of(encoder)
    whole = encoder.eval()(batch, 4)
    assert dropped(encoder, batch) == 0
    assert 0.15 < sum(dropped(encoder.train(), batch) for _ in range(10)) / 10 < 0.45
    some = encoder(batch, 4)
    assert torch.equal(some.mask_BM, whole.mask_BM), "a dropped latent keeps its place"
    left = some.z_BMD.abs().sum(-1) > 0
    torch.testing.assert_close(some.z_BMD[left], whole.z_BMD[left])


def test_annealing_goes_from_all_to_keep_and_goes_on_after_a_resume(tiny_readers):
    encoder = build(tiny_readers, keep=0.01, anneal=4, layers=0).train()
    batch = batch_of(encoder)
    shares = [dropped(encoder, batch) for _ in range(6)]
    assert shares[0] == 0
    assert shares[0] < shares[2] < shares[4]
    assert min(shares[4:]) > 0.9
    encoder.eval()(batch, 4)
    assert int(encoder.passes) == 6, "only training counts"
    again = build(tiny_readers, keep=0.01, anneal=4, layers=0).train()
    again.load_state_dict(encoder.state_dict())
    assert dropped(again, batch) > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": 0.0}, "above 0 and at most 1, not 0.0"),
        ({"anneal": -1}, "not -1"),
        ({"heads": 3}, "3 heads cannot share a width of 16"),
        ({"inner": {"type": "byte", "d_z": 32}}, r"encoder.inner.d_z is 32, encoder.d_z is 16; say it once"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny_readers, changes, message):
    with pytest.raises(UserError, match=message):
        build(tiny_readers, **changes)


def test_the_encoder_inside_is_a_config_of_its_own(tiny_readers):
    tree = config(EncoderConfig, "refined", tiny_readers, inner={"type": "pca", "init": "gemma", "whiten": True})
    assert decode(EncoderConfig, {"type": "refined", **encode(tree)}) == tree
    encoder = tree.build()
    assert (encoder.inner.config.d_z, encoder.inner.config.ratios, encoder.inner.config.window) == (16, (4, 8), 64)
    assert encoder.reads() == encoder.inner.reads()


def test_a_wire_with_a_refined_encoder_is_saved_and_loaded(tiny_readers, tmp_path):
    encoder = config(EncoderConfig, "refined", tiny_readers, keep=0.8, anneal=4)
    wire = Wire.create(WireConfig(encoder, {"llama": LinkConfig(str(tiny_readers["llama"]))}), [WORDS])
    wire.encoder.train()(batch_of(wire.encoder), 4)
    wire.eval().save_pretrained(tmp_path)
    again = Wire.from_pretrained(tmp_path)
    assert again.encode([WORDS])[0].to_bytes() == wire.encode([WORDS])[0].to_bytes()
    assert int(again.encoder.passes) == 1
