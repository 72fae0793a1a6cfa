"""Blocks act on everything behind the latents' prefix, however it is read, and on nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conftest import FAMILIES, WORDS
from latentwire.errors import UserError
from latentwire.injections.cross_attention import CrossAttentionConfig
from latentwire.objectives.answer import AnswerConfig
from latentwire.reading import read_text
from latentwire.receivers.attention import own_causal
from latentwire.receivers.decode import generate
from latentwire.receivers.load import load_receiver
from latentwire.training.step import Step
from latentwire.wire import Wire
from test_defects import ROWS, asked, one_by_one, wire_of

CONTEXTS = [row.context for row in ROWS]


def crossed(readers, *names) -> Wire:
    """A wire whose blocks are open and differ from layer to layer, as if trained."""
    wire = wire_of(readers, names, "cross-attention").eval()
    with torch.no_grad():
        for name in names:
            for number, block in enumerate(blocks_of(wire, name)):
                block.gate.fill_(1.5 - 2.0 * number)
                block.value.weight.mul_(4)
    return wire


def blocks_of(wire, name):
    return list(wire.links[name].injection.blocks.values())


def prefix_of(wire, name):
    return wire.prefix(name, wire.latents(wire.encode(CONTEXTS, ratio=4)))


def forward(receiver, prefix, ids_BT):
    """Logits of rows of one length, read at once."""
    mask = torch.ones_like(ids_BT, dtype=torch.bool)
    place = prefix.next_B[:, None] + torch.arange(ids_BT.shape[1])
    return receiver.logits(receiver.states(ids_BT, positions_BT=place, own_BTT=own_causal(mask), prefix=prefix))


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_step_by_step_is_one_forward_over_the_whole_row(tiny_readers, family):
    wire = crossed(tiny_readers, family)
    receiver, prefix = wire.get_receiver(family), prefix_of(wire, family)
    assert [block.layer for block in prefix.blocks] == [0, 1]
    tails = receiver.prompt.question_ids([row.question for row in ROWS])
    assert len(set(map(len, tails))) > 1
    # in one go, and as evaluation does it: the question is read first, the prefix expanded and read on
    said = generate(receiver, prefix, tails, max_new_tokens=8, min_new_tokens=8).ids
    for row, tail in enumerate(tails):
        alone = prefix.take(torch.tensor([row, row]))
        ids_BT = torch.tensor([tail[:-1]] * 2)
        read = receiver.read(ids_BT, torch.ones_like(ids_BT, dtype=torch.bool), alone)
        again = generate(receiver, read, [tail[-1:]] * 2, max_new_tokens=8, min_new_tokens=8).ids
        assert again == [said[row]] * 2
        logits_TV = forward(receiver, prefix.take(torch.tensor([row])), torch.tensor([tail + said[row]]))[0]
        logits_TV[:, receiver.prompt.eos_id] = float("-inf")
        assert logits_TV[len(tail) - 1 : -1].argmax(-1).tolist() == said[row]
        closed = replace(prefix.take(torch.tensor([row])), blocks=())
        other = forward(receiver, closed, torch.tensor([tail + said[row]]))[0]
        apart = (logits_TV - other).nan_to_num(0, 0, 0).abs().amax(-1)
        assert (apart > 1e-3).all(), "a token that the blocks did not reach"


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_training_are_read_with_the_blocks(tiny_readers, family):
    wire = crossed(tiny_readers, family)
    batch, receiver = asked(wire, family), wire.get_receiver(family)
    step = Step(wire, {"answer": AnswerConfig().build()}, 72, 50, [family])
    _, parts = step(batch, "questions", 4, None, "context", 0.0, torch.Generator().manual_seed(0))
    prefix, rows, losses = wire.prefix(family, wire.encoder(batch.source, 4)), batch.read[family], []
    for i in range(3):
        ids = rows.questions_BRT[i, 0, : rows.length_BR[i, 0]].tolist()
        losses += one_by_one(receiver, prefix.take(torch.tensor([i])), ids)[rows.asks_BR[i, 0] - 1 :]
    assert float(parts[f"{family}/answer"]) == pytest.approx(-sum(losses) / len(losses), abs=2e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_without_blocks_is_read_as_if_there_were_none(tiny_readers, family, monkeypatch):
    wire = crossed(tiny_readers, family)
    receiver, prefix = wire.get_receiver(family), prefix_of(wire, family)
    ids_BT = torch.tensor(receiver.prompt.question_ids([ROWS[0].question]) * 3)
    without = replace(prefix, blocks=())
    given: list[set[str]] = []
    run = receiver.layers.run

    def watched(layer, *args, **kwargs):
        given.append(set(kwargs))
        return run(layer, *args, **kwargs)

    monkeypatch.setattr(receiver.layers, "run", watched)
    before, opened = forward(receiver, without, ids_BT), forward(receiver, prefix, ids_BT)
    assert not torch.equal(before, opened)
    # a layer that is compiled is the same one for both
    assert all(names == given[0] and "blocks" not in names for names in given)
    for block in blocks_of(wire, family):
        block.gate.zero_()
    assert torch.equal(forward(receiver, prefix_of(wire, family), ids_BT), before), "a closed gate changes nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_training_opens_the_gates_and_text_never_meets_them(tiny_readers, family):
    wire = wire_of(tiny_readers, [family], "cross-attention")
    receiver, packed = wire.get_receiver(family), asked(wire, family)
    frozen = {name: weight.clone() for name, weight in receiver.model.state_dict().items()}
    for block in blocks_of(wire, family):
        torch.nn.init.zeros_(block.gate)
    passages = packed.read[family]
    teach = Step(wire, {"answer": AnswerConfig().build()}, 72, 50, [family])

    def of_text():
        text = read_text(receiver, CONTEXTS)
        assert text.blocks == receiver.head().blocks == ()
        logits = forward(receiver, text, torch.tensor([[7, 9, 11]] * 3))
        return logits, teach.teacher(receiver, passages.ids_BT, passages.count_B, passages.questions_BRT)

    before = of_text()
    optimizer = torch.optim.AdamW(wire.parameters(), lr=0.02)
    losses = []
    for _ in range(6):
        loss, _ = teach(packed, "questions", 4, None, "context", 0.0, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(block.gate.abs() > 0.01 for block in blocks_of(wire, family))
    blocks = wire.links[family].injection.blocks
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in blocks.parameters())
    assert all(torch.equal(a, b) for a, b in zip(of_text(), before, strict=True))
    # neither has become a part of the other
    assert all(torch.equal(weight, frozen[name]) for name, weight in receiver.model.state_dict().items())
    own = {id(p) for p in receiver.model.parameters()}
    assert not own & {id(p) for p in wire.parameters()}


def test_a_saved_wire_answers_identically(tiny_readers, tmp_path):
    wire = crossed(tiny_readers, *FAMILIES)
    wire.save_pretrained(tmp_path / "wire")
    again = Wire.from_pretrained(tmp_path / "wire")
    packets = wire.encode(CONTEXTS, ratio=4)
    for name in FAMILIES:
        assert torch.equal(*(forward(w.get_receiver(name), prefix_of(w, name), torch.tensor([[7, 9]] * 3))
                             for w in (wire, again)))  # fmt: skip
        for packet, row in zip(packets, ROWS, strict=True):
            said = [w.receiver(name).generate(packet, row.question) for w in (wire, again)]
            assert said[0] == said[1]


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_adds_in_units_of_its_layers_states(tiny_readers, family):
    receiver = load_receiver(tiny_readers[family])
    injection = CrossAttentionConfig(heads=2, head_dim=8).build(receiver.geometry)
    injection.calibrate(receiver, [WORDS, WORDS[:80]])
    ids = receiver.prompt.context_ids([WORDS])
    head, states = receiver.head(), []
    for layer in receiver.decoder.layers if hasattr(receiver.decoder, "layers") else receiver.decoder.h:
        layer.register_forward_hook(lambda _m, _i, out: states.append(out))
    receiver.read(torch.tensor(ids), torch.ones(1, len(ids[0]), dtype=torch.bool), head)
    sizes = [h.square().mean(-1).sqrt().mean() for h in states]
    scales = [block.scale for block in injection.blocks.values()]
    assert len(scales) == len(sizes) == 2
    for scale, size in zip(scales, sizes, strict=True):
        assert 0.8 < scale / size < 1.25


@torch.no_grad()
def test_a_block_beside_shorter_numbers_gives_their_kind_and_takes_nothing_where_nothing_is(tiny_readers):
    receiver = load_receiver(tiny_readers["llama"], dtype=torch.bfloat16)
    injection = CrossAttentionConfig(heads=2, head_dim=8, gate=1.0).build(receiver.geometry)
    injection.calibrate(receiver, [WORDS])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    slots = torch.randn(2, 3, receiver.geometry.width)
    prefix = injection(slots, mask, torch.arange(3.0).expand(2, -1), torch.tensor([9, 9]), receiver)
    assert (prefix.count_B - receiver.head().count_B).tolist() == [2, 0]
    ids_BT = torch.tensor([[7, 9]] * 2)
    got, plain = (forward(receiver, p, ids_BT) for p in (prefix, replace(prefix, blocks=())))
    assert got.isfinite().all()
    assert torch.equal(got[1], plain[1]) and not torch.equal(got[0], plain[0])


def test_shares_of_the_depth_name_layers(tiny_readers):
    geometry = replace(load_receiver(tiny_readers["llama"]).geometry, layers=32)
    layers = [list(CrossAttentionConfig(at=at).build(geometry).blocks) for at in ((0.25, 0.5, 0.75), (1.0, 0.01, 0.02))]
    assert layers == [["7", "15", "23"], ["0", "31"]]


@pytest.mark.parametrize("wrong", [{"at": ()}, {"at": (0.0, 0.5)}, {"at": (1.5,)}, {"heads": 0}, {"head_dim": 0}])
def test_settings_that_cannot_be_are_refused(tiny_readers, wrong):
    with pytest.raises(UserError, match=r"injection\."):
        CrossAttentionConfig(**wrong).build(load_receiver(tiny_readers["llama"]).geometry)


def test_a_receiver_whose_layers_have_another_width_is_refused(tiny_readers):
    receiver = load_receiver(tiny_readers["llama"])
    narrow = CrossAttentionConfig().build(replace(receiver.geometry, width=16))
    with pytest.raises(UserError, match="another injection"):
        narrow.calibrate(receiver, [WORDS])
