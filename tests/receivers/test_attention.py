"""Reading on top of a prefix is what the model itself computes in one go, for every family."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from conftest import FAMILIES
from latentwire.receivers.attention import additive, own_causal
from latentwire.receivers.load import load_receiver


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def whole(path, ids_BT: torch.Tensor) -> torch.Tensor:
    """Logits of transformers' own forward, with its own attention."""
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(ids_BT).logits


def test_text_read_in_two_parts_gives_the_logits_of_one_part(tiny_readers, family):
    receiver = load_receiver(tiny_readers[family])
    ids_BT = torch.randint(5, 300, (3, 20), generator=torch.Generator().manual_seed(0))
    first = torch.ones(3, 12, dtype=torch.bool)
    with torch.no_grad():
        prefix = receiver.read(ids_BT[:, :12], first)
        positions = torch.arange(12, 20).expand(3, -1)
        h_BTE = receiver.states(
            ids_BT[:, 12:],
            positions_BT=positions,
            own_BTT=own_causal(torch.ones(3, 8, dtype=torch.bool)),
            prefix=prefix,
        )
        torch.testing.assert_close(
            receiver.logits(h_BTE), whole(tiny_readers[family], ids_BT)[:, 12:], atol=1e-4, rtol=1e-4
        )


def test_pads_of_a_prefix_are_not_seen(tiny_readers, family):
    receiver = load_receiver(tiny_readers[family])
    ids_BT = torch.randint(5, 300, (2, 16), generator=torch.Generator().manual_seed(1))
    padded = torch.cat([ids_BT[:, :9], torch.randint(5, 300, (2, 5)), ids_BT[:, 9:]], 1)
    mask = torch.ones(2, 14, dtype=torch.bool)
    mask[:, 9:] = False
    with torch.no_grad():
        prefix = receiver.read(padded[:, :14], mask)
        assert prefix.next_B.tolist() == [9, 9]
        own = own_causal(torch.ones(2, 7, dtype=torch.bool))
        h_BTE = receiver.states(
            padded[:, 14:], positions_BT=torch.arange(9, 16).expand(2, -1), own_BTT=own, prefix=prefix
        )
        torch.testing.assert_close(
            receiver.logits(h_BTE), whole(tiny_readers[family], ids_BT)[:, 9:], atol=1e-4, rtol=1e-4
        )


def test_the_mask_is_made_once_for_all_heads_that_share_a_key(tiny_readers, family):
    receiver = load_receiver(tiny_readers[family])
    seen = torch.rand(2, 1, 6, 11) > 0.5
    added = additive(seen, receiver.model, torch.bfloat16)
    groups = 1 if family == "gpt2" else 2
    assert added.shape == (2, 1, 6 * groups, 11)
    assert all(stride % 8 == 0 for stride in added.stride()[:-1])
    for part in added.chunk(groups, 2):
        assert torch.equal(part == 0, seen)
        assert torch.equal(part.isneginf(), ~seen)
