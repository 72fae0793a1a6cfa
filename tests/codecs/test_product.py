"""Codes of parts: bits and back, neighbours on the way back, a start that tells tokens apart, what learns from them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import layer_norm

from latentwire.codecs.apart import LEAST, begin_apart
from latentwire.codecs.product import ProductCodes, ProductConfig
from latentwire.errors import UserError

D, P, E, V = 24, 2, 10, 30
SMALL = {"stages": 2, "parts": P, "bits": 8, "width": 6, "read": 8, "kernel": 3, "layers": 2}


@pytest.fixture
def parts() -> ProductCodes:
    torch.manual_seed(0)
    return lively(ProductConfig(**SMALL).build(D).eval())


def lively(codes: ProductCodes) -> ProductCodes:
    """With blocks that do something."""
    for block in codes.blocks:
        torch.nn.init.normal_(block.mlp[-1].weight, std=0.3)  # ty: ignore[not-subscriptable]
    return codes


def spelled(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents [n, D] of P tokens each, with noise; the tokens; embeddings of all tokens."""
    known, generator = torch.Generator().manual_seed(9), torch.Generator().manual_seed(seed)
    table, mixed = torch.randn(V, E, generator=known), torch.randn(P * E, D, generator=known)
    ids = torch.multinomial(1 / torch.arange(1.0, V + 1), n * P, replacement=True, generator=generator).view(n, P)
    z = table[ids].flatten(1) @ mixed + 0.5 * torch.randn(n, D, generator=generator)
    return layer_norm(z, (D,)), ids, table


def test_what_codes_name_is_what_training_reads(parts):
    z, mask = torch.randn(2, 9, D), torch.arange(9) < torch.tensor([[9], [5]])
    codes = parts.codes(z, 2)
    assert codes.dtype == torch.uint8 and codes.shape == (2, 9, 2)
    assert torch.equal(parts.numbers(codes), parts.find(parts.narrow(z)))
    told = parts(z, mask, 2)[0].detach()
    torch.testing.assert_close(parts.vectors(codes, mask), told)
    each = parts.read([codes[0], codes[1, :5]])
    for row, many in enumerate((9, 5)):  # the same alone as beside a longer one
        torch.testing.assert_close(parts.vectors(codes[row, :many]), told[row, :many])
        torch.testing.assert_close(each[row], told[row, :many])


@pytest.mark.parametrize(("count", "bits"), [(4, 14), (2, 4), (8, 1), (4, 20), (3, 8)])
def test_bits_of_the_parts_stand_behind_one_another_the_least_first(count, bits, monkeypatch):
    codes = ProductConfig(stages=count * bits // 8, parts=count, bits=bits, width=2, read=2, layers=0).build(D)
    numbers = torch.randint(2**bits, (1, 6, count), generator=torch.Generator().manual_seed(bits))
    monkeypatch.setattr(codes, "find", lambda _: numbers)
    packed = codes.codes(torch.zeros(1, 6, D), codes.config.stages)
    for latent, row in zip(packed[0].tolist(), numbers[0].tolist(), strict=True):
        whole = sum(number << place * bits for place, number in enumerate(row))
        assert bytes(latent) == whole.to_bytes(count * bits // 8, "little")
    assert torch.equal(codes.numbers(packed), numbers)


def test_a_packet_of_codes_is_their_bytes_and_fewer_are_none(parts):
    z_MD = torch.randn(7, D)
    codec = parts.codec(2 * 8 / D)
    data = codec.pack(z_MD)
    assert len(data) == codec.nbytes(7, D) == 14
    torch.testing.assert_close(codec.unpack(data, 7, D), parts.vectors(parts.codes(z_MD, 2)))
    padded = torch.cat([z_MD, torch.zeros(3, D)])[None]  # as a batch has them beside longer ones
    torch.testing.assert_close(codec.fake_quantise(padded)[0, :7], codec.unpack(data, 7, D))
    with pytest.raises(UserError, match="2 codes for a latent, all or none, not 1"):
        parts.codec(8 / D)
    with pytest.raises(UserError, match="all or none"):
        parts.vectors(torch.zeros(3, 1, dtype=torch.uint8))


def test_the_way_back_reaches_so_many_neighbours_and_no_further(parts):
    codes = parts.codes(torch.randn(20, D), 2)
    before = parts.vectors(codes)
    codes[10] = 255 - codes[10]
    changed = (parts.vectors(codes) - before).abs().amax(-1) > 1e-6
    assert changed.nonzero()[:, 0].tolist() == [8, 9, 10, 11, 12]  # two blocks, each one to either side


def test_masked_latents_say_nothing(parts):
    z, mask = torch.randn(1, 12, D), torch.arange(12)[None] < 5
    through, apart = parts(z, mask, 2)
    other, same = parts(torch.where(mask[..., None], z, 7.0), mask, 2)
    assert torch.equal(through[:, :5], other[:, :5]) and not through[:, 5:].any()
    assert float(apart.detach()) == pytest.approx(float(same.detach()))


def test_it_begins_with_parts_that_tell_tokens_apart(parts):
    z, ids, table = spelled(2000)
    ids[:5, 1] = -1  # the last latent of a text may be short of tokens
    before = parts.vectors(parts.codes(z, 2))
    assert parts.begin(z, ids, table)
    unseen, told, _ = spelled(500, seed=1)
    codes = parts.codes(unseen, 2)
    by_use = ids[5:].flatten().bincount(minlength=V).argsort(descending=True, stable=True)
    named = parts.numbers(codes)
    # behind the tokens the book has room for latents as they were: they name no single token
    alone = named < V
    assert alone.float().mean() > 0.2
    assert (by_use[named[alone]] == told[alone]).float().mean() > 0.9
    assert (parts.vectors(codes) - unseen).square().mean() < 0.5 * (before - z).square().mean()


def test_it_begins_with_none_but_whole_spans_of_as_many_tokens(parts):
    z, ids, table = spelled(2000)
    before = parts.state_dict()["down.weight"].clone()
    assert not parts.begin(z, ids[:, :1], table)
    assert torch.equal(parts.down.weight, before)
    with pytest.raises(UserError, match=f"begin from {LEAST} latents"):
        parts.begin(z[: LEAST - 1], ids[: LEAST - 1], table)
    with pytest.raises(UserError, match=r"codes\.read is at most the width"):
        begin_apart(z, ids, table, E + 1, 8)


def test_a_book_too_small_for_all_tokens_has_the_frequent_ones():
    z, ids, table = spelled(2000)
    small, whole = (begin_apart(z, ids, table, 8, size).book_CR for size in (10, 64))
    assert small.shape == (10, 8) and whole.shape == (64, 8)
    assert torch.equal(small, whole[:10])


def test_latents_book_and_maps_learn_from_what_is_read_and_from_the_distance(parts):
    z = torch.randn(1, 40, D, requires_grad=True)
    mask = torch.ones(1, 40, dtype=torch.bool)
    for which in (0, 1):
        parts.zero_grad()
        z.grad = None
        found = parts(z, mask, 2)[which]
        (found * torch.arange(D)).sum().backward() if which == 0 else found.backward()
        assert z.grad is not None and z.grad.abs().sum() > 0
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parts.parameters())


def test_it_learns_to_tell_latents(parts):
    z, _, _ = spelled(400)
    z, mask, losses = z.view(10, 40, D), torch.ones(10, 40, dtype=torch.bool), []
    optimizer = torch.optim.Adam(parts.parameters(), 3e-3)
    for _ in range(120):
        _, apart = parts(z, mask, 2)
        optimizer.zero_grad()
        apart.backward()
        optimizer.step()
        losses.append(float(apart.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_another_book_is_another_maker(parts):
    before = parts.fingerprint(b"12345678")
    assert before == parts.fingerprint(b"12345678") != parts.fingerprint(b"other")
    with torch.no_grad():
        parts.book.weight += 1
    read = parts.fingerprint(b"12345678")
    parts.keys += 1
    assert len({before, read, parts.fingerprint(b"12345678")}) == 3


@pytest.mark.parametrize(
    "setting",
    [
        {"bits": 21},
        {"parts": 3},
        {"stages": 8},
        {"width": 0},
        {"read": 63},
        {"kernel": 4},
        {"layers": -1},
        {"pull": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        ProductConfig(**setting)
