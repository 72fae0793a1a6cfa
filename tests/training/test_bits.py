"""Draws read through a packet's bits: what is read is what decoding leaves, and the encoder learns all the same."""

from __future__ import annotations

import pytest
import torch

from latentwire.codecs import by_bits
from latentwire.config import decode
from latentwire.errors import UserError
from latentwire.training.check import check
from latentwire.training.config import Draw, TrainConfig
from latentwire.training.sending import sent


@pytest.mark.parametrize("bits", [16, 8, 6, 4])
def test_what_is_read_is_what_a_packet_leaves(full_run, bits):
    step, wire = full_run.step, full_run.wire
    generator = torch.Generator().manual_seed(3)
    work = step.cut(full_run.stores["text"].draw(0, 0, generator), "text", 0.5, generator)
    plain = wire.encoder(work.source, 4)
    read, far = sent(wire, plain, None, bits)
    codec = by_bits(bits)
    for z_MD, told_MD, mask_M in zip(plain.z_BMD, read.z_BMD, plain.mask_BM, strict=True):
        there = z_MD[mask_M].detach()
        packed = codec.decode(codec.encode(there), *there.shape)
        torch.testing.assert_close(told_MD[mask_M].detach(), packed, atol=1e-5, rtol=1e-5)
    assert far is None and torch.equal(read.mask_BM, plain.mask_BM)
    # straight through: the gradient is that of the latents themselves
    grads = torch.autograd.grad(read.z_BMD.square().sum(), plain.z_BMD)[0]
    torch.testing.assert_close(grads, 2 * read.z_BMD.detach())


def test_a_step_of_few_bits_differs_and_teaches_the_encoder(full_run):
    step, wire = full_run.step, full_run.wire
    generator = torch.Generator().manual_seed(3)
    work = step.cut(full_run.stores["text"].draw(0, 0, generator), "text", 0.5, generator)
    whole, few = (step.losses(work, *Draw(4, bits=bits).how)[0] for bits in (None, 4))
    assert not torch.equal(whole, few) and torch.isclose(whole, few, rtol=0.2)
    few.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in wire.encoder.parameters())
    wire.zero_grad(set_to_none=True)


def test_draws_of_bits_have_names_and_are_checked(tiny_tree):
    assert Draw(8, 4, bits=4).name == "8x4-4bits" and Draw(8, bits=6).name == "8x-6bits"

    def refused(draw: dict) -> None:
        wire = {**tiny_tree["wire"], "codes": {"stages": 2}}
        check(decode(TrainConfig, {**tiny_tree, "wire": wire, "draws": [draw]}))

    with pytest.raises(UserError, match="bits"):
        refused({"ratio": 4, "bits": 5})
    with pytest.raises(UserError, match="from codes or from bits, not from both"):
        refused({"ratio": 4, "bits": 4, "codes": 2})
