"""Reading back: batches make no difference, it ends where the packet says, loops are left; and on the shipped wire what
is read back is the packet's text and no other."""

from __future__ import annotations

import pytest

from conftest import WORDS
from latentwire.errors import UserError
from latentwire.readback import overlap, recite, windows
from latentwire.types import Generated

TEXTS = [WORDS[:70], WORDS[71:260], WORDS[100:131]]


@pytest.fixture(scope="module")
def packets(tiny_wire):
    return tiny_wire.encode(TEXTS, ratio=4)


def test_neighbours_change_nothing(tiny_wire, packets):
    together = recite(tiny_wire, "llama", packets)
    assert together == [recite(tiny_wire, "llama", [packet])[0] for packet in packets]
    assert together == recite(tiny_wire, "llama", packets, batch_size=2)
    assert len(set(together)) == 3


def test_it_ends_where_the_packet_says(tiny_wire, packets):
    receiver, link = tiny_wire.get_receiver("qwen2"), tiny_wire.links["qwen2"]
    for packet, said in zip(packets, recite(tiny_wire, "qwen2", packets), strict=True):
        goal = round(packet.source_tokens * float(link.fertility))
        # what random weights say is not tokenised as it was said, but no token is longer than all of the alphabet's
        assert len(receiver.prompt.ids([said])[0]) > 0
        assert len(said) <= goal * max(map(len, receiver.tokenizer.get_vocab()))


def test_modes_are_not_mixed(tiny_wire, packets):
    asked = tiny_wire.encode(TEXTS[:1], ratio=4, questions=["Who?"])
    assert recite(tiny_wire, "llama", asked)[0]
    with pytest.raises(UserError, match="cannot share a batch"):
        recite(tiny_wire, "llama", [packets[0], asked[0]])


def test_a_loop_is_left(tiny_wire, packets, monkeypatch):
    """A receiver that always says the same is begun anew instead of being asked for all of the text."""
    asked = []

    def stuck(receiver, prefix, tails, max_new_tokens, min_new_tokens):
        asked.append((max_new_tokens, prefix.count_B.tolist()))
        return Generated([""] * len(tails), [[7] * max_new_tokens] * len(tails))

    monkeypatch.setattr(windows, "generate", stuck)
    monkeypatch.setattr(windows, "IN_SIGHT", 8)
    recite(tiny_wire, "llama", packets[1:2])
    begun = [seen for most, seen in asked if most == windows.OPENING]
    gone_on = [seen for most, seen in asked if most == windows.NEW]
    assert len(begun) > 2 and len(gone_on) > 1
    # a beginning sees a few slots, a window sees all of them
    assert max(begun) < min(gone_on)


def test_a_long_text_is_seen_in_parts(tiny_wire, packets, monkeypatch):
    seen = []
    real = windows.generate

    def watched(receiver, prefix, tails, max_new_tokens, min_new_tokens):
        seen.append(prefix.mask_BM[0].nonzero()[:, 0].tolist())
        return real(receiver, prefix, tails, max_new_tokens, min_new_tokens)

    monkeypatch.setattr(windows, "generate", watched)
    recite(tiny_wire, "llama", packets[1:2])
    whole = max(seen, key=len)
    seen.clear()
    monkeypatch.setattr(windows, "SIGHT", 24)
    recite(tiny_wire, "llama", packets[1:2])
    assert max(map(len, seen)) < len(whole)
    # the first is near the beginning, the last at the end, and each sees the head
    assert seen[1][-1] < whole[-1] == seen[-1][-1] and all(row[0] == 0 for row in seen)


@pytest.fixture(scope="module")
def shipped():
    from latentwire import Wire

    return Wire.from_pretrained("sandbox", receivers=["llama"])


FACT = (
    "The Norwegian expedition to the South Pole was led by Roald Amundsen. He and four others arrived at the pole on "
    "14 December 1911, five weeks before a British party."
)
OTHER = "Chopin was born in a village west of Warsaw, and his father taught French at the school of the city."


def test_the_shipped_wire_reads_its_text_back_and_not_another(shipped):
    said = recite(shipped, "llama", shipped.encode([FACT, OTHER], ratio=4))
    for place, own, other in ((0, FACT, OTHER), (1, OTHER, FACT)):
        right, wrong = overlap(said[place], own), overlap(said[place], other)
        assert right.f1 > 0.4 and right.lcs > 0.35, said[place]
        assert wrong.lcs < 0.5 * right.lcs, said[place]
