"""Codes on a grid: bytes and back, coarser beginnings, what learns from them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import layer_norm

from latentwire.codecs.grid import GridCodes, GridConfig
from latentwire.errors import UserError

D = 12


def latents(n: int = 40, seed: int = 0) -> torch.Tensor:
    """Latents that three numbers tell."""
    generator = torch.Generator().manual_seed(seed)
    return layer_norm(
        torch.randn(1, n, 3, generator=generator) @ torch.randn(3, D, generator=torch.manual_seed(9)), (D,)
    )


@pytest.fixture
def grid() -> GridCodes:
    torch.manual_seed(0)
    return GridCodes(GridConfig(stages=3, hidden=32), D).eval()


@pytest.mark.parametrize("levels", [2, 4, 16, 256])
def test_what_codes_name_is_what_training_reads(levels):
    torch.manual_seed(0)
    grid, z = GridConfig(stages=3, levels=levels, hidden=32).build(D).eval(), 3 * latents()
    mask = torch.ones(z.shape[:2], dtype=torch.bool)
    for stages in (1, 3):
        codes = grid.codes(z, stages)
        assert codes.dtype == torch.uint8 and codes.shape == (1, 40, stages)
        torch.testing.assert_close(grid.vectors(codes), grid(z, mask, stages)[0].detach())
    assert torch.equal(grid.codes(z, 1), grid.codes(z, 3)[..., :1])  # a beginning is a packet of its own
    every = torch.arange(256, dtype=torch.uint8)[:, None]
    told = (every.long()[..., None] // grid.places(every) % levels).flatten(-2)
    assert len(torch.unique(grid.values(told.float()), dim=0)) == 256  # each byte is values of its own
    assert grid.values(told.float()).abs().max() == 1


def test_a_byte_holds_levels_from_the_least_digit_on(grid, monkeypatch):
    levels = torch.tensor([0.0, 1, 2, 3, 3, 0, 0, 1, 2, 2, 2, 2])
    monkeypatch.setattr(grid, "narrow", lambda z: grid.values(levels).expand(1, 1, -1))
    assert grid.codes(torch.zeros(1, 1, D), 3).tolist() == [[[0 + 4 + 32 + 192, 3 + 64, 2 + 8 + 32 + 128]]]


def test_a_packet_of_codes_is_their_bytes(grid):
    z_MD = latents()[0]
    codec = grid.codec(2 * 8 / D)
    data = codec.pack(z_MD)
    assert len(data) == codec.nbytes(40, D) == 80
    torch.testing.assert_close(codec.unpack(data, 40, D), grid.vectors(grid.codes(z_MD, 2)))
    torch.testing.assert_close(codec.fake_quantise(z_MD), grid.vectors(grid.codes(z_MD, 2)))
    with pytest.raises(UserError, match="1 to 3 codes"):
        grid.codec(4 * 8 / D)


def test_it_learns_to_tell_latents_and_passes_their_gradient_on(grid):
    grid.train()
    mask, losses = torch.ones(1, 40, dtype=torch.bool), []
    optimizer = torch.optim.Adam(grid.parameters(), 3e-3)
    for step in range(300):
        _, apart = grid(latents(seed=step), mask, 3)
        optimizer.zero_grad()
        apart.backward()
        optimizer.step()
        losses.append(float(apart.detach()))
    assert losses[-1] < 0.25 * losses[0]
    z = latents().requires_grad_()
    through, apart = grid(z, mask, 3)
    apart.backward(retain_graph=True)
    assert z.grad is not None
    by_distance = z.grad.clone()
    through.square().mul(torch.arange(D)).mean().backward()
    assert (z.grad - by_distance).abs().sum() > 0


def test_masked_latents_say_nothing(grid):
    z, mask = latents(), torch.arange(40)[None] < 10
    through, apart = grid(z, mask, 3)
    other, same = grid(torch.where(mask[..., None], z, 7.0), mask, 3)
    assert torch.equal(through[:, :10], other[:, :10]) and not through[:, 10:].any()
    assert float(apart.detach()) == pytest.approx(float(same.detach()))


def test_another_way_back_is_another_maker(grid):
    before = grid.fingerprint(b"12345678")
    assert before == grid.fingerprint(b"12345678") != grid.fingerprint(b"other")
    with torch.no_grad():
        grid.up[0].bias += 1
    assert grid.fingerprint(b"12345678") != before


@pytest.mark.parametrize("setting", [{"levels": 3}, {"hidden": 0}, {"stages": 0}, {"commit": -1}])
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        GridConfig(**setting)
