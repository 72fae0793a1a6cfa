"""Defects of an earlier implementation, each with a test of its number.

1  labels shifted twice              9  text measured with adapters attached
2  the end never learnt             10  injections silent while decoding
3  positions under padding          11  checkpoints that left out parts
4  the question cut off             12  random weights taken for trained ones
5  the gold answer's length told    13  bytes of the whole set
6  padding inside the encoder       14  soft tokens off the embeddings' scale
7  three layouts                    15  answers sliced as if the prompt were in them
8  a mask shorter than the cache    16  one lucky batch saved as the best

What is tested on a whole evaluation stands in tests/evaluation/test_runner.py (3 to 6, 9, 13), the 16th in
tests/training/test_best.py; the last test here looks that none is missing.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import FAMILIES, WORDS
from contracts.matrix import ENCODERS, INJECTIONS, config
from latentwire.conditions import Condition, TextRow
from latentwire.encoders import EncoderConfig
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.evaluation.runner import evaluate
from latentwire.injections import InjectionConfig
from latentwire.link import LinkConfig
from latentwire.objectives.answer import AnswerConfig
from latentwire.receivers.attention import own_causal
from latentwire.receivers.decode import generate
from latentwire.receivers.load import load_receiver
from latentwire.receivers.receiver import Receiver
from latentwire.receivers.rows import row_states
from latentwire.training.batches import Batches
from latentwire.training.config import CorpusConfig
from latentwire.training.corpus import question_store
from latentwire.training.step import Step
from latentwire.types import Example
from latentwire.wire import Wire, WireConfig

ROWS = [
    Example("1", WORDS[:60], "Who led the expedition?", ("Roald Amundsen",)),
    Example("2", WORDS[60:160], "When did they arrive?", ("14 December 1911",)),
    Example("3", WORDS[100:170], "How many people live there?", ("1,204",)),
]


def wire_of(readers, names, injection="kv-prefix") -> Wire:
    torch.manual_seed(0)
    links = {
        name: LinkConfig(receiver=str(readers[name]), injection=config(InjectionConfig, injection, readers))
        for name in names
    }
    encoder = LMEncoderConfig(d_z=16, ratios=(4,), window=200, init=str(readers["llama"]))
    return Wire.create(WireConfig(encoder, links), [WORDS, WORDS[:100]])


def asked(wire, name):
    """A batch of the three rows, as a training run would store and draw it."""
    prompt = wire.get_receiver(name).prompt
    store = question_store(
        ROWS, wire.encoder, {name: prompt}, CorpusConfig(longest=200, row=72, stretch=2.0, threads=1)
    )
    batches = Batches(store, {name: 4}, 3, 1, torch.device("cpu"))
    return batches.at(torch.arange(3), torch.zeros(3, 1))


def one_by_one(receiver, prefix, ids: list[int]) -> list[float]:
    """Log-probability of each token of ``ids`` behind those before it, read without anything clever."""
    found = []
    for end in range(1, len(ids)):
        own = own_causal(torch.ones(1, end, dtype=torch.bool))
        place = prefix.next_B[:, None] + torch.arange(end)
        h = receiver.states(torch.tensor([ids[:end]]), positions_BT=place, own_BTT=own, prefix=prefix)
        found.append(receiver.logits(h[0, -1]).log_softmax(-1)[ids[end]].item())
    return found


def greedy(receiver, prefix, tail: list[int], most: int) -> list[int]:
    """The likeliest tokens behind ``tail``, everything read anew for each of them."""
    ids = list(tail)
    for _ in range(most):
        own = own_causal(torch.ones(1, len(ids), dtype=torch.bool))
        place = prefix.next_B[:, None] + torch.arange(len(ids))
        h = receiver.states(torch.tensor([ids]), positions_BT=place, own_BTT=own, prefix=prefix)
        token = int(receiver.logits(h[0, -1]).argmax())
        if token == receiver.prompt.eos_id:
            break
        ids.append(token)
    return ids[len(tail) :]


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_defect_01_the_loss_is_on_every_answer_token_from_the_first(tiny_readers, family):
    wire = wire_of(tiny_readers, [family])
    batch, receiver = asked(wire, family), wire.get_receiver(family)
    step = Step(wire, {"answer": AnswerConfig().build()}, 72, 50, [family])
    _, parts = step(batch, "questions", 4, None, "context", 0.0, torch.Generator().manual_seed(0))
    prefix, rows, losses = wire.prefix(family, wire.encoder(batch.source, 4)), batch.read[family], []
    for i in range(3):
        ids = rows.questions_BRT[i, 0, : rows.length_BR[i, 0]].tolist()
        losses += one_by_one(receiver, prefix.take(torch.tensor([i])), ids)[rows.asks_BR[i, 0] - 1 :]
    assert len(losses) == sum(len(receiver.prompt.answer_ids([e.answers[0]])[0]) for e in ROWS)
    assert float(parts[f"{family}/answer"]) == pytest.approx(-sum(losses) / len(losses), abs=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_defect_02_the_end_is_a_target_and_pads_and_beginnings_are_not(tiny_readers, family):
    wire = wire_of(tiny_readers, [family])
    prompt, passages = wire.get_receiver(family).prompt, asked(wire, family).read[family]
    rows = AnswerConfig().build().cut(passages, 72, torch.Generator())
    for i, example in enumerate(ROWS):
        told = rows.ids_BRT[i, 0][rows.target_BRT[i, 0]].tolist()
        assert told == prompt.ids([f" {example.answers[0]}"])[0] + [prompt.eos_id]
        assert prompt.bos_id not in told


@torch.no_grad()
@pytest.mark.parametrize("encoder", ENCODERS)
def test_defect_04_no_encoder_loses_the_question_behind_a_long_text(tiny_readers, encoder):
    made = config(EncoderConfig, encoder, tiny_readers)
    names = getattr(made, "receivers", None) or ["llama"]  # some latents may be private
    links = {name: LinkConfig(receiver=str(tiny_readers["llama"])) for name in names}
    wire = Wire.create(WireConfig(made, links), [WORDS, WORDS[:100]]).eval()
    text = WORDS * 4  # 1,200 bytes and more
    one, other = (wire.encode_latents([text], 4, [question]) for question in ("Who led it?", "How many are there?"))
    last = int(one.count_B[0]) - 1
    found = other.z_BMD[0, : int(other.count_B[0])]
    nearest = (found - one.z_BMD[0, last]).square().mean(-1).sqrt().min()
    assert nearest > 1e-3, "the end of what was encoded does not depend on the question"


def test_defect_04_a_budget_of_one_token_still_asks_the_whole_question():
    tail, anchor = [7, 8, 9, 1, 2], [1, 2]
    for name, condition in Condition.known().items():
        if name in ("budget-question", "same-bytes", "text", "none"):
            given = condition().give(TextRow(WORDS, 80, tail, anchor, slots=1, room=1))
            assert given.tail == tail, name


def sequence(calls: list) -> list[tuple[int, int]]:
    """(position, token) of everything that was read, in order and each once."""
    pairs = {pair for ids, positions in calls for pair in zip(positions[0].tolist(), ids[0].tolist(), strict=True)}
    return sorted(pairs)


@pytest.fixture
def reads(monkeypatch):
    """Records tokens and positions of whatever a receiver reads; with one example nothing is padded."""
    calls, plain = [], Receiver.states

    def states(self, ids_BT=None, **given):
        if ids_BT is not None:
            assert len(ids_BT) == 1
            calls.append((ids_BT, given["positions_BT"]))
        return plain(self, ids_BT, **given)

    monkeypatch.setattr(Receiver, "states", states)
    return calls


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_defect_07_training_evaluation_and_decoding_show_one_layout(tiny_readers, family, request):
    wire = wire_of(tiny_readers, [family]).eval()
    batch = asked(wire, family)
    reads = request.getfixturevalue("reads")  # only from here on: making a wire reads many texts
    example, receiver = ROWS[0], wire.get_receiver(family)
    prompt, receiver._head = receiver.prompt, None
    receiver.head()
    head = sequence(reads)
    begin = [] if prompt.bos_id is None else [prompt.bos_id]
    assert [token for _, token in head] == begin + prompt.ids(["Context:"])[0]

    def read_by(do) -> list[tuple[int, int]]:
        reads.clear()
        do()
        return sequence(reads)

    # training: the first passage alone, its row without what pads it
    rows = batch.read[family]
    length = int(rows.length_BR[0, 0])
    prefix = wire.prefix(family, wire.encoder(batch.source, 4)).take(torch.tensor([0]))
    trained = read_by(lambda: row_states(receiver, prefix, rows.questions_BRT[:1, :, :length]))
    told = prompt.answer_ids([example.answers[0]])[0]
    tail = prompt.question_ids([example.question])[0]
    assert [token for _, token in trained] == tail + told
    assert trained[0][0] == int(prefix.next_B[0])

    # evaluation: question, then the gold answer but for its end, which nothing follows
    def judged() -> None:
        evaluate(wire, [example], ratios=(4,), conditions=["latents"], receivers=[family], progress=False)

    seen = read_by(judged)
    assert set(trained[:-1]) <= set(seen)
    # decoding: the same question at the same places
    packet = wire.encode([example.context], ratio=4)[0]
    said = read_by(lambda: wire.receiver(family).generate(packet, example.question, max_new_tokens=1))
    assert said == trained[: len(tail)]

    # and the text: the teacher's in training, the baseline's in evaluation, a person's
    step = Step(wire, {"answer": AnswerConfig().build()}, 72, 50, [family])
    count = rows.count_B[:1]
    ids = rows.questions_BRT[:1, :, :length]
    taught = read_by(lambda: step.teacher(receiver, rows.ids_BT[:1, : int(count)], count, ids))
    context = prompt.context_ids([example.context])[0]
    assert [token for _, token in taught] == context + tail + told
    assert taught[0][0] == len(head)
    answered = read_by(lambda: wire.receiver(family).answer(example.context, example.question, 1))
    assert answered == taught[: -len(told)]


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_defect_08_decoding_with_kept_keys_is_decoding_from_the_beginning(tiny_readers, family):
    wire = wire_of(tiny_readers, [family])
    receiver = wire.get_receiver(family)
    prefix = wire.prefix(family, wire.latents(wire.encode([e.context for e in ROWS], ratio=4)))
    tails = receiver.prompt.question_ids([e.question for e in ROWS])
    assert len(set(map(len, tails))) > 1, "rows of one length would hide a wrong mask"
    got = generate(receiver, prefix, tails, max_new_tokens=6).ids
    for i, tail in enumerate(tails):
        assert got[i] == greedy(receiver, prefix.take(torch.tensor([i])), tail, 6)


@torch.no_grad()
@pytest.mark.parametrize("injection", INJECTIONS)
def test_defect_09_the_teacher_is_the_frozen_receiver_whatever_the_links_hold(tiny_readers, injection):
    wire = wire_of(tiny_readers, FAMILIES, injection)
    for name in FAMILIES:
        receiver, rows = wire.get_receiver(name), asked(wire, name).read[name]
        step = Step(wire, {"answer": AnswerConfig().build()}, 72, 50, [name])
        given = rows.ids_BT, rows.count_B, rows.questions_BRT
        bare = load_receiver(tiny_readers[name])
        expected = step.teacher(bare, *given)
        for parameter in wire.links[name].parameters():
            parameter.add_(torch.randn_like(parameter))
        wire.prefix(name, wire.latents(wire.encode([ROWS[0].context], ratio=4)))
        assert torch.equal(step.teacher(receiver, *given), expected)
        assert receiver.fingerprint() == bare.fingerprint()


@torch.no_grad()
@pytest.mark.parametrize("injection", INJECTIONS)
def test_defect_10_what_is_injected_acts_in_every_step_of_decoding(tiny_readers, injection):
    wire = wire_of(tiny_readers, FAMILIES, injection)
    packets = wire.encode([ROWS[0].context, ROWS[1].context], ratio=4)
    for name in FAMILIES:
        receiver = wire.get_receiver(name)
        one, other = (wire.prefix(name, wire.latents([packet])) for packet in packets)
        ids = receiver.prompt.question_ids([ROWS[0].question])[0]
        pairs = zip(one_by_one(receiver, one, ids), one_by_one(receiver, other, ids), strict=True)
        assert all(abs(a - b) > 1e-6 for a, b in pairs)
        assert generate(receiver, one, [ids], max_new_tokens=8).ids == [greedy(receiver, one, ids, 8)]


def test_defect_11_a_saved_wire_is_whole_and_answers_identically(tiny_readers, tmp_path):
    wire = wire_of(tiny_readers, ["llama", "gpt2"]).eval()
    wire.save_pretrained(tmp_path / "wire")
    again = Wire.from_pretrained(tmp_path / "wire")
    packets = wire.encode([e.context for e in ROWS], ratio=4)
    assert [p.to_bytes() for p in again.encode([e.context for e in ROWS], ratio=4)] == [p.to_bytes() for p in packets]
    for name in wire.receivers:
        for packet, example in zip(packets, ROWS, strict=True):
            said = [w.receiver(name).generate(packet, example.question) for w in (wire, again)]
            assert said[0] == said[1]
    path = tmp_path / "wire" / "model.safetensors"
    state = load_file(path)
    for key in (next(k for k in state if k.startswith("links.gpt2.")), next(k for k in state if "encoder" in k)):
        save_file({k: v for k, v in state.items() if k != key}, path)
        with pytest.raises(UserError, match="do not fit"):
            Wire.from_pretrained(tmp_path / "wire")
    save_file({**state, "links.llama.adapter.more": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="do not fit"):
        Wire.from_pretrained(tmp_path / "wire")


@pytest.mark.parametrize("family", FAMILIES)
def test_defect_12_weights_that_are_missing_are_never_made_up(tiny_readers, tmp_path, family):
    where = tmp_path / "reader"
    shutil.copytree(tiny_readers[family], where)
    state = load_file(where / "model.safetensors")
    lost = next(name for name in sorted(state) if "1." in name and state[name].ndim == 2)
    save_file({k: v for k, v in state.items() if k != lost}, where / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="would have been random"):
        load_receiver(where)
    (where / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot load a receiver"):
        load_receiver(where)


@pytest.mark.parametrize("family", FAMILIES)
def test_defect_14_soft_tokens_start_at_the_embeddings_scale_and_may_leave_it(tiny_readers, family, monkeypatch):
    receiver = load_receiver(tiny_readers[family])
    injection = config(InjectionConfig, "soft-tokens", tiny_readers).build(receiver.geometry)
    injection.calibrate(receiver, [WORDS])
    receiver.head()
    read = []

    def keep(ids_BT, mask_BT, prefix, *, embeds_BTE, positions_BT):
        read.append(embeds_BTE)
        return prefix

    monkeypatch.setattr(receiver, "read", keep)
    slots = torch.randn(2, 6, receiver.geometry.width, generator=torch.Generator().manual_seed(0))
    mask, place = torch.ones(2, 6, dtype=torch.bool), torch.arange(6.0).expand(2, -1)
    for factor in (1.0, 10.0):
        injection(slots * factor, mask, place, torch.tensor([9, 9]), receiver)
    ids = torch.tensor([receiver.prompt.context_ids([WORDS])[0]])
    scale = receiver.embed(ids).float().pow(2).mean().sqrt()
    sizes = [x.detach().pow(2).mean().sqrt() / scale for x in read]
    assert 0.5 < sizes[0] < 2.0
    assert sizes[1] > 5 * sizes[0], "a clamp would hold the size whatever is learnt"
    read[0].sum().backward()
    assert injection.gain.grad is not None and injection.gain.grad.abs() > 0


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_defect_15_an_answer_is_every_new_token_and_none_of_the_prompt(tiny_readers, family, tmp_path, monkeypatch):
    """The receiver is made to say known words, then its end token."""
    wire = wire_of(tiny_readers, [family]).eval()
    receiver = wire.get_receiver(family)
    words = "Roald Amundsen of the Norwegian party"
    script = [*receiver.prompt.ids([f" {words}"])[0], receiver.prompt.eos_id]
    step = {"at": 0}

    def logits(h_NE: torch.Tensor) -> torch.Tensor:
        said_NV = torch.zeros(*h_NE.shape[:-1], receiver.geometry.vocab)
        said_NV[..., script[step["at"] % len(script)]] = 1.0
        step["at"] += 1
        return said_NV

    def scripted(receiver, prefix, tails, *args, **kwargs):
        step["at"] = 0
        return generate(receiver, prefix, tails, *args, **kwargs)

    monkeypatch.setattr(receiver, "logits", logits)
    for module in ("latentwire.reading", "latentwire.evaluation.measure"):
        monkeypatch.setattr(f"{module}.generate", scripted)
    packets = wire.encode([e.context for e in ROWS], ratio=4)
    asked_for = [e.question for e in ROWS]
    assert wire.receiver(family).generate(packets, asked_for) == [words] * len(ROWS)
    assert wire.receiver(family).answer(ROWS[0].context, ROWS[0].question) == words
    rows = [dataclasses.replace(e, answers=(words,)) for e in ROWS]
    results = evaluate(wire, rows, ratios=(4,), conditions=["text", "none", "latents"], progress=False)
    assert [row["em"] for row in results["rows"]] == [1.0, 1.0, 1.0]


def test_every_defect_has_a_test_of_its_number():
    found = set()
    for path in Path(__file__).parent.rglob("test_*.py"):
        found |= set(re.findall(r"^def test_defect_(\d\d)_", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert found == {f"{number:02}" for number in range(1, 17)}
