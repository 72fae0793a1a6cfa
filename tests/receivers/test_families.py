"""Receivers of every promised family compute what transformers' own model computes, whatever they read."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from conftest import tiny_tokenizer
from latentwire.injections.kv_column import KVColumnConfig
from latentwire.receivers import Receiver
from latentwire.receivers.attention import own_causal
from latentwire.receivers.decode import generate
from latentwire.types import Prefix
from receivers.families import FAMILIES, SLIDING, VOCABULARY, model_of

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated")
HEAD, T = 5, 9
CLOSE = {"atol": 2e-4, "rtol": 2e-4}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer(VOCABULARY - 20, digits=False)


@pytest.fixture(params=FAMILIES, scope="module")
def pair(request, tokenizer):
    """A receiver, and transformers' own model of the same weights."""
    return Receiver(request.param, model_of(request.param), tokenizer), model_of(request.param)


def some_ids(rows: int, count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(5, VOCABULARY - 20, (rows, count), generator=torch.Generator().manual_seed(seed))


def logits_behind(receiver: Receiver, prefix: Prefix, ids_BT: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V] of tokens read on top of a prefix."""
    mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    positions_BT = prefix.next_B[:, None] + torch.arange(ids_BT.shape[1])
    return receiver.logits(
        receiver.states(ids_BT, positions_BT=positions_BT, own_BTT=own_causal(mask_BT), prefix=prefix)
    )


@torch.no_grad()
def test_the_small_models_depend_on_what_they_read(pair):
    ids = some_ids(1, 24)
    other = ids.clone()
    other[0, 0] += 1
    one, two = (pair[1](x).logits[0] for x in (ids, other))
    # also where a sliding window is long past, if any layer sees everything or passes it on
    assert (one[SLIDING - 1] - two[SLIDING - 1]).abs().max() > 1e-2


@torch.no_grad()
def test_text_read_in_parts_gives_the_logits_of_the_whole(pair):
    receiver, plain = pair
    ids = some_ids(2, 24)
    prefix = receiver.read(ids[:, :7], torch.ones(2, 7, dtype=torch.bool))
    prefix = receiver.read(ids[:, 7:15], torch.ones(2, 8, dtype=torch.bool), prefix)
    torch.testing.assert_close(logits_behind(receiver, prefix, ids[:, 15:]), plain(ids).logits[:, 15:], **CLOSE)


@torch.no_grad()
def test_keys_and_values_are_those_that_transformers_keeps(pair):
    receiver, plain = pair
    ids = some_ids(2, 14)
    cache = DynamicCache()  # without a config: it keeps everything, whatever a layer will look at
    plain(ids, past_key_values=cache, use_cache=True)
    prefix = receiver.read(ids, torch.ones(2, 14, dtype=torch.bool))
    assert len(prefix.kv) == len(cache.layers)
    for (k, v), layer in zip(prefix.kv, cache.layers, strict=True):
        torch.testing.assert_close(k, layer.keys, **CLOSE)
        torch.testing.assert_close(v, layer.values, **CLOSE)


@torch.no_grad()
def test_vectors_are_read_as_transformers_reads_inputs_embeds(pair):
    receiver, plain = pair
    head, ids = some_ids(2, HEAD, 1), some_ids(2, T, 2)
    vectors = torch.randn(2, 10, receiver.geometry.width, generator=torch.Generator().manual_seed(3))
    vectors *= receiver.embed(head).square().mean().sqrt()
    words = plain.get_input_embeddings()
    cache = DynamicCache(config=plain.config)
    plain(inputs_embeds=torch.cat([words(head), vectors], 1), past_key_values=cache, use_cache=True)
    mask = torch.ones(2, HEAD + 10 + T, dtype=torch.long)
    places = torch.arange(HEAD + 10, HEAD + 10 + T).expand(2, -1)
    expected = plain(ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True).logits
    start = receiver.read(head, torch.ones(2, HEAD, dtype=torch.bool))
    prefix = receiver.read(None, torch.ones(2, 10, dtype=torch.bool), start, embeds_BTE=vectors)
    torch.testing.assert_close(logits_behind(receiver, prefix, ids), expected, **CLOSE)


@torch.no_grad()
def test_generating_goes_on_as_transformers_does(pair):
    receiver, plain = pair
    text, tail = some_ids(1, 12, 4), some_ids(1, 4, 5)
    words = plain.get_input_embeddings()
    whole = words(torch.cat([text, tail], 1))
    expected = plain.generate(
        inputs_embeds=whole, attention_mask=torch.ones(whole.shape[:2], dtype=torch.long), do_sample=False,
        max_new_tokens=8, min_new_tokens=8,
    )  # fmt: skip
    prefix = receiver.read(None, torch.ones(1, 12, dtype=torch.bool), embeds_BTE=words(text))
    assert generate(receiver, prefix, tail.tolist(), 8, 8).ids == expected.tolist()
    # beside a longer row, which pads its prefix and its tail
    other = receiver.read(some_ids(1, 17, 6), torch.ones(1, 17, dtype=torch.bool))
    both = Prefix.stacked([other, prefix])
    assert (
        generate(receiver, both, [some_ids(1, 7, 7)[0].tolist(), tail[0].tolist()], 8, 8).ids[1:] == expected.tolist()
    )


@torch.no_grad()
def test_keys_are_turned_to_their_places_by_the_familys_own_rotation(pair):
    receiver, _ = pair
    if not receiver.geometry.rope:
        return
    ids = some_ids(1, 6)
    mask, near = torch.ones(1, 6, dtype=torch.bool), torch.arange(6)[None]
    # a layer above the first has keys that depend on what is seen, which is the same at other places
    at_once, moved = (receiver.read(ids, mask, positions_BT=near + step).kv for step in (0, 17))
    for layer in range(receiver.geometry.layers):
        bare = receiver.rotate(at_once[layer][0], near, layer, back=True)
        torch.testing.assert_close(receiver.rotate(bare, near + 17, layer), moved[layer][0], **CLOSE)
    bare = torch.stack([receiver.rotate(k, near, layer, back=True) for layer, (k, _) in enumerate(at_once)], 1)
    for layer, k in enumerate(receiver.rotate_layers(bare, near + 17).unbind(1)):
        torch.testing.assert_close(k, moved[layer][0], **CLOSE)


@torch.no_grad()
def test_keys_and_values_made_of_a_texts_own_give_the_logits_of_the_text(pair):
    """What ``kv-column`` and ``kv-prefix`` would make if they were perfect: its own numbers, back in unit scale."""
    receiver, plain = pair
    head, text, ids = some_ids(2, HEAD, 1), some_ids(2, 10, 2), some_ids(2, T, 3)
    start = receiver.read(head, torch.ones(2, HEAD, dtype=torch.bool))
    told = receiver.read(text, torch.ones(2, 10, dtype=torch.bool), start)
    torch.manual_seed(0)
    made = KVColumnConfig(stand=True).build(receiver.geometry)
    made.calibrate(receiver, ["The Norwegian expedition to the South Pole", "Context: he and four others arrived"])
    places = torch.arange(HEAD, HEAD + 10).expand(2, -1)
    k = torch.stack([receiver.rotate(k[:, :, HEAD:], places, n, back=True) for n, (k, _) in enumerate(told.kv)], 1)
    v = torch.stack([v[:, :, HEAD:] for _, v in told.kv], 1)
    k, v = (
        (x - getattr(made, f"{n}_mean")[:, :, None]) / getattr(made, f"{n}_std")[:, :, None]
        for n, x in (("k", k), ("v", v))
    )
    mask = torch.ones(2, 10, dtype=torch.bool)
    prefix = start.then(made.placed(k, v, mask, places.float(), torch.full((2,), HEAD + 10), receiver))
    expected = plain(torch.cat([head, text, ids], 1)).logits[:, HEAD + 10 :]
    torch.testing.assert_close(logits_behind(receiver, prefix, ids), expected, atol=1e-3, rtol=1e-3)
    # and the module itself makes something that can be read
    slots = torch.randn(2, 10, KVColumnConfig().slot_width(receiver.geometry))
    found = made(slots, mask, places.float(), torch.full((2,), HEAD + 10), receiver)
    assert logits_behind(receiver, found, ids).isfinite().all()
