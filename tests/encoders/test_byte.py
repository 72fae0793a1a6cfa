"""Private latents: one packet, of which every receiver reads what is everyone's and what is its own."""

from __future__ import annotations

import pytest
import torch

from conftest import WORDS
from contracts.matrix import config
from latentwire.encoders import EncoderConfig
from latentwire.errors import UserError
from latentwire.link import LinkConfig
from latentwire.wire import Wire, WireConfig

NAMES = ["llama", "qwen2"]


def build(tiny_readers, **options):
    torch.manual_seed(0)
    return config(EncoderConfig, "byte", tiny_readers, **{"receivers": NAMES, "shared": 2, **options}).build().eval()


def test_a_group_stands_in_the_order_of_the_text(tiny_readers):
    owners, places = config(EncoderConfig, "byte", tiny_readers, receivers=NAMES, shared=2).group()
    assert owners == ("", "llama", "qwen2", "") and places == (0.25, 0.5, 0.5, 0.75)
    owners, _ = config(EncoderConfig, "byte", tiny_readers, receivers=NAMES, private=2).group()
    assert owners[0] == "", "the shortest text still has something for everyone"
    assert sorted(owners) == ["", "llama", "llama", "qwen2", "qwen2"]


@pytest.mark.parametrize("texts", [["A", WORDS[:50], WORDS]])
@pytest.mark.parametrize("fixed", [False, True])
def test_shared_and_own_latents_are_the_packet_without_the_others(tiny_readers, texts, fixed):
    encoder = build(tiny_readers, fixed=fixed)
    with torch.no_grad():
        latents = encoder.encode(encoder.prepare(texts), 4)
    for row in range(3):
        n = int(latents.count_B[row])
        owners = [encoder.owners[i % 4] for i in range(n)]
        for name in [*NAMES, "late"]:
            part = encoder.part(latents, name)
            expected = latents.z_BMD[row, [i for i in range(n) if owners[i] in ("", name)]]
            torch.testing.assert_close(part.z_BMD[row][part.mask_BM[row]], expected, rtol=0, atol=0)
            assert not part.z_BMD[row][~part.mask_BM[row]].any() and len(expected)
            # real latents come first, as everywhere
            assert (part.mask_BM[row].int().diff() <= 0).all()


def test_lengths_of_the_fixed_form_sum_to_m(tiny_readers):
    encoder = build(tiny_readers, fixed=True, window=128, ratios=[4], shared=16, private=8)
    for text in ("A", WORDS):
        latents = encoder.encode(encoder.prepare([text]), 4)
        assert int(latents.count_B[0]) == 32
        assert [int(encoder.part(latents, name).count_B[0]) for name in (*NAMES, "late")] == [24, 24, 16]


def test_in_a_text_of_several_windows_latents_keep_their_owners(tiny_readers):
    """A private query differs from a shared one: the owner that a latent was made for is seen in its values."""
    encoder = build(tiny_readers)
    assert encoder.config.unit() == 32
    source = encoder.prepare([WORDS])
    count = source.arrays["count"]
    assert len(count) > 2 and all(count[:-1] % 32 == 0)
    before = encoder.encode(source, 4)
    with torch.no_grad():
        encoder.own["qwen2"].add_(1.0)
    after = encoder.encode(source, 4)
    n = int(before.count_B[0])
    moved = ((after.z_BMD - before.z_BMD).abs().sum(-1) > 1e-4)[0, :n].tolist()
    assert moved == [i % 4 == 2 for i in range(n)]
    for name in ("llama", "late"):
        torch.testing.assert_close(encoder.part(after, name).z_BMD, encoder.part(before, name).z_BMD)


def wire_of(tiny_readers, inner=False):
    torch.manual_seed(0)
    byte = {"receivers": NAMES, "shared": 2}
    if inner:
        small = {"type": "byte", "width": 16, "layers": 1, "heads": 2, **byte}
        encoder = config(EncoderConfig, "refined", tiny_readers, inner=small)
    else:
        encoder = config(EncoderConfig, "byte", tiny_readers, **byte)
    links = {name: LinkConfig(str(tiny_readers[name])) for name in NAMES}
    return Wire.create(WireConfig(encoder, links), [WORDS]).eval()


@pytest.mark.parametrize("inner", [False, True])
def test_a_receiver_reads_its_own_and_not_the_others(tiny_readers, tmp_path, inner):
    wire = wire_of(tiny_readers, inner)
    wire.save_pretrained(tmp_path)
    again = Wire.from_pretrained(tmp_path)
    packet = again.encode([WORDS[:64]], ratio=4)[0]
    assert packet.to_bytes() == wire.encode([WORDS[:64]], ratio=4)[0].to_bytes() and len(packet.z_MD) == 16
    latents = again.latents([packet])
    other = latents.with_z(latents.z_BMD.clone())
    other.z_BMD[:, 2::4] = 0  # qwen2's own
    for name, same in (("llama", True), ("qwen2", False)):
        one, two = again.prefix(name, latents), again.prefix(name, other)
        assert int(one.count_B[0]) - again.get_receiver(name).head().mask_BM.shape[1] == 12
        assert torch.equal(one.kv[0][1], two.kv[0][1]) is same
        # the question stands behind the whole text, of which a receiver reads a part of the latents
        assert int(one.next_B[0]) == int(two.next_B[0])
    again.join("gpt2", LinkConfig(str(tiny_readers["gpt2"])), [WORDS])
    head = again.get_receiver("gpt2").head().mask_BM.shape[1]
    assert int(again.prefix("gpt2", latents).count_B[0]) - head == 8
    assert again.prefix("gpt2", latents).next_B > head


def test_latents_that_nobody_would_read_are_refused(tiny_readers):
    encoder = config(EncoderConfig, "byte", tiny_readers, receivers=["llama", "lamma"])
    with pytest.raises(UserError, match="names 'lamma', which has no link"):
        Wire.create(WireConfig(encoder, {"llama": LinkConfig(str(tiny_readers["llama"]))}), [WORDS])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shared": 0}, "each is at least 1"),
        ({"receivers": ["a", "a"]}, "each once"),
        ({"fixed": True, "shared": 3}, "ratio 4 gives 16 latents, no multiple of the 5"),
        ({"shared": 7}, "takes up to 72 bytes, encoder.window is 64"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny_readers, options, message):
    with pytest.raises(UserError, match=message):
        build(tiny_readers, **options)
