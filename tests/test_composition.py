"""Several packets for one question: read one behind the other, as their texts would be."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from conftest import WORDS
from latentwire.errors import UserError
from latentwire.link import RESERVE
from latentwire.receivers.attention import own_causal

NAMES = ("llama", "qwen2")
TEXTS = [WORDS[:90], WORDS[90:170], WORDS[170:]]
QUESTION = "Who led the expedition?"


@pytest.fixture(scope="module")
def packets(tiny_wire):
    return tiny_wire.encode(TEXTS, ratio=4)


def prefix_of(wire, name, rows):
    first, *behind = wire.columns(rows)
    with torch.no_grad():
        return wire.prefix(name, first, behind=behind)


def logits(wire, name, prefix):
    """Logits of the question's tokens behind a prefix, [B, T, V]."""
    receiver = wire.get_receiver(name)
    B, ids = len(prefix.mask_BM), torch.tensor([receiver.prompt.question_ids([QUESTION])[0]])
    positions_BT = prefix.next_B[:, None] + torch.arange(ids.shape[1])
    own_BTT = own_causal(torch.ones(B, ids.shape[1], dtype=torch.bool))
    with torch.no_grad():
        states = receiver.states(ids.expand(B, -1), positions_BT=positions_BT, own_BTT=own_BTT, prefix=prefix)
        return receiver.logits(states)


@pytest.mark.parametrize("name", NAMES)
def test_two_packets_give_the_logits_of_their_keys_and_values_fed_by_hand(tiny_wire, tiny_readers, packets, name):
    """By hand: transformers' own model and cache, head and packets one behind the other, positions counted here."""
    receiver, link = tiny_wire.get_receiver(name), tiny_wire.links[name]
    model = AutoModelForCausalLM.from_pretrained(tiny_readers[name], attn_implementation="eager").eval()
    head = torch.tensor([receiver.prompt.head_ids()])
    at = head.shape[1]
    with torch.no_grad():
        cache = model(head, use_cache=True).past_key_values
        layers = [[(layer.keys, layer.values)] for layer in cache.layers]
        for packet in packets[:2]:
            latents = tiny_wire.latents([packet])
            slots_BSE = link.adapter(latents, "context", 1)
            length = packet.source_tokens * float(link.fertility)
            step = length / len(packet.z_MD)
            places = torch.tensor([[at + (i + 0.5) * step - 0.5 for i in range(len(packet.z_MD))]])
            made = link.injection.without_head(slots_BSE, latents.mask_BM, places, None, receiver)
            for layer, pair in zip(layers, made.kv, strict=True):
                layer.append(pair)
            at += length
        kv = [tuple(torch.cat(list(each), 2) for each in zip(*layer, strict=True)) for layer in layers]
        ids = torch.tensor([receiver.prompt.question_ids([QUESTION])[0]])
        wanted = model(
            ids,
            past_key_values=DynamicCache(kv, config=model.config),
            attention_mask=torch.ones(1, kv[0][0].shape[2] + ids.shape[1], dtype=torch.long),
            position_ids=round(at) + torch.arange(ids.shape[1])[None],
        ).logits
    prefix = prefix_of(tiny_wire, name, [packets[:2]])
    assert int(prefix.next_B) == round(at)
    torch.testing.assert_close(logits(tiny_wire, name, prefix), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_one_packet_is_read_as_ever(tiny_wire, packets, name):
    alone = tiny_wire.prefix(name, tiny_wire.latents([packets[0]]))
    row = prefix_of(tiny_wire, name, [[packets[0]]])
    assert torch.equal(row.next_B, alone.next_B)
    for (k, v), (again_k, again_v) in zip(alone.kv, row.kv, strict=True):
        assert torch.equal(k, again_k) and torch.equal(v, again_v)
    reading = tiny_wire.receiver(name)
    assert reading.answer_from(packets[:1], QUESTION) == reading.generate(packets[0], QUESTION)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_several_lengths_are_what_each_is_alone(tiny_wire, packets, name):
    rows = [packets, packets[1:2], [packets[2], packets[0]]]
    together = logits(tiny_wire, name, prefix_of(tiny_wire, name, rows))
    for row, got in zip(rows, together, strict=True):
        torch.testing.assert_close(
            got, logits(tiny_wire, name, prefix_of(tiny_wire, name, [row]))[0], rtol=1e-4, atol=1e-4
        )
    reading = tiny_wire.receiver(name)
    said = reading.generate(rows, [QUESTION] * 3, max_new_tokens=6)
    assert said == [reading.answer_from(row, QUESTION, max_new_tokens=6) for row in rows]


def test_every_packet_and_their_order_matter(tiny_wire, packets):
    a, b, c = packets
    seen = [
        logits(tiny_wire, "llama", prefix_of(tiny_wire, "llama", [row]))
        for row in ([a, b, c], [a, c, b], [a, b], [b, c])
    ]
    for i, one in enumerate(seen):
        assert all((one - other).abs().max() > 1e-2 for other in seen[:i])


def test_the_question_stands_where_it_would_behind_the_texts(tiny_wire, packets):
    for name in NAMES:
        receiver = tiny_wire.get_receiver(name)
        start = receiver.head().mask_BM.shape[1]
        told = sum(p.source_tokens for p in packets) * float(tiny_wire.links[name].fertility)
        next_B = prefix_of(tiny_wire, name, [packets]).next_B
        assert int(next_B) == start + round(told)
        assert abs(int(next_B) - start - len(receiver.prompt.contexts_ids(TEXTS))) <= 0.2 * told


def test_what_is_longer_than_the_window_is_squeezed_into_it(tiny_wire, packets):
    receiver, link = tiny_wire.get_receiver("llama"), tiny_wire.links["llama"]
    parts = tiny_wire.columns([packets * 8, packets])
    positions_BS, next_B = link.place(parts, receiver, 1)
    assert int(next_B[0]) == receiver.geometry.window - RESERVE and int(next_B[1]) < int(next_B[0])
    there = torch.cat([part.mask_BM for part in parts], 1)
    for row in (0, 1):
        places = positions_BS[row][there[row]]
        assert (places.diff() > 0).all() and places[-1] < next_B[row]
    assert tiny_wire.receiver("llama").answer_from(packets * 8, QUESTION, max_new_tokens=2) is not None


def test_several_texts_are_answered_from_as_text(tiny_wire):
    reading = tiny_wire.receiver("llama")
    assert reading.answer([WORDS[:90]], QUESTION) == reading.answer(WORDS[:90], QUESTION)
    prompt = tiny_wire.get_receiver("llama").prompt
    assert prompt.contexts_ids(TEXTS[:2]) == prompt.context_ids(TEXTS[:1])[0] + prompt.context_ids(TEXTS[1:2])[0]
    assert isinstance(reading.answer(TEXTS[:2], QUESTION, max_new_tokens=2), str)


def test_what_cannot_be_read_together_is_refused(tiny_wire, packets):
    reading = tiny_wire.receiver("llama")
    asked = tiny_wire.encode([WORDS[:90]], 4, ["Who?"])[0]
    with pytest.raises(UserError, match="hold a question each"):
        reading.answer_from([asked, asked], "")
    with pytest.raises(UserError, match="cannot share"):
        reading.answer_from([packets[0], asked], QUESTION)
    with pytest.raises(UserError, match=r"3 packets but 1 prompts.*a list of their own"):
        reading.generate(packets, QUESTION)
    with pytest.raises(UserError, match="nothing to read"):
        reading.answer_from([], QUESTION)


@pytest.mark.parametrize("name", NAMES)
def test_the_best_packets_are_those_behind_which_the_question_is_likeliest(tiny_wire, packets, name):
    reading, receiver = tiny_wire.receiver(name), tiny_wire.get_receiver(name)
    tail = receiver.prompt.question_ids([QUESTION])[0]
    said = []
    for packet in packets:
        of_V = logits(tiny_wire, name, prefix_of(tiny_wire, name, [[packet]]))[0, :-1].log_softmax(-1)
        said.append(float(of_V.gather(1, torch.tensor(tail[1:])[:, None]).sum()))
    order = sorted(range(3), key=lambda place: -said[place])
    for best in (1, 2):
        wanted = [packets[place] for place in sorted(order[:best])]
        assert reading.sifted([packets, packets[:1]], [QUESTION] * 2, best) == [wanted, packets[:1]]
        assert reading.answer_from(packets, QUESTION, best=best) == reading.answer_from(wanted, QUESTION)
    assert reading.sifted([packets], [QUESTION], 3) == [packets]
    # what stands beside a row makes no difference, nor does the place that a packet comes in
    turned = [packets[order[0]], packets[order[2]], packets[order[1]]]
    both = reading.sifted([turned, packets], [QUESTION, "When?"], 1)
    assert both == [[packets[order[0]]], *reading.sifted([packets], ["When?"], 1)]
    with pytest.raises(UserError, match="from 1, not 0"):
        reading.answer_from(packets, QUESTION, best=0)
