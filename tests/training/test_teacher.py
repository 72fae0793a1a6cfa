"""The kept teacher: what it says is what the live one says, it is made once, and a step needs no other."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch

from contracts.waits import NothingWaits
from latentwire.data.rows import read_examples
from latentwire.data.squad import shipped_valid
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.link import LinkConfig
from latentwire.objectives import KeptTeacher
from latentwire.objectives.answer import AnswerConfig
from latentwire.objectives.kl import KLConfig
from latentwire.objectives.recall import Recall, RecallConfig
from latentwire.receivers.attention import own_causal
from latentwire.receivers.load import load_receiver
from latentwire.training import teacher
from latentwire.training.batches import Batches
from latentwire.training.config import CorpusConfig
from latentwire.training.corpus import question_store
from latentwire.training.pieces import split
from latentwire.training.run import train
from latentwire.training.step import Step
from latentwire.types import Example
from latentwire.wire import Wire, WireConfig

WORDS = (
    "The Norwegian expedition to the South Pole was led by Roald Amundsen. He and four others arrived at the pole on "
    "14 December 1911, five weeks before a British party led by Robert Falcon Scott. The city has 1,204 inhabitants. "
    "When did they arrive? How many people live there?"
)
ASKED = ("Who led the expedition?", "When did they arrive?", "How many people live there?")
ROWS = [
    Example(f"{i}-{j}", WORDS[i : i + 80], question, (WORDS[i + 5 * j : i + 5 * j + 9],))
    for n, i in enumerate((0, 60, 100, 150))
    for j, question in enumerate(ASKED[: 1 + n % 3])
]
NEAR = 1e-3
"""Nats by which reading a passage in another batch may differ."""


@pytest.fixture(scope="module")
def wire(tiny_readers):
    torch.manual_seed(0)
    encoder = LMEncoderConfig(d_z=16, ratios=(4,), window=200, init=str(tiny_readers["llama"]))
    links = {name: LinkConfig(receiver=str(tiny_readers[name])) for name in ("qwen2", "gpt2")}
    return Wire.create(WireConfig(encoder, links), [WORDS, WORDS[:100]]).eval()


@pytest.fixture(scope="module")
def store(wire):
    prompts = {name: wire.get_receiver(name).prompt for name in wire.receivers}
    return question_store(ROWS, wire.encoder, prompts, CorpusConfig(longest=200, asked=96, stretch=2.0, threads=1))


def step_of(wire, name, question=0.0, **more) -> Step:
    objectives = {"answer": AnswerConfig(question=question).build(), "kl": KLConfig(**more).build()}
    return Step(wire, objectives, 96, 50, [name])


def kept(wire, store, name, folder, top=16, question=False) -> teacher.Kept:
    return teacher.keep(
        wire.get_receiver(name), store, step_of(wire, name).teacher, folder, top, question, batch=3, asks=2
    )


def batches(store, name, held=None) -> Batches:
    made = Batches(store, dict.fromkeys(store.read, 4), 4, 2, torch.device("cpu"))
    made.kept = {} if held is None else {name: held}
    return made


def parts(wire, store, name, held=None, fixed=False, **more) -> dict[str, float]:
    step = step_of(wire, name, **more)
    step.fixed = fixed
    batch = batches(store, name, held).at(torch.arange(4), torch.tensor([[0.0, 0.9]] * 4))
    with torch.no_grad():
        loss, found = step(batch, "questions", 4, None, "context", 0.0, torch.Generator().manual_seed(0))
    return {"loss": float(loss), **{key.partition("/")[2]: float(value) for key, value in found.items()}}


def test_what_it_falls_short_of_is_the_divergence_among_the_other_tokens():
    generator = torch.Generator().manual_seed(0)
    t, s = (4 * torch.randn(50, 300, generator=generator).log_softmax(-1) for _ in range(2))
    t, s = t.log_softmax(-1), s.log_softmax(-1)
    live = (t.exp() * (t - s)).sum(-1)
    ids, logs = teacher.outcomes(t, 20)
    assert logs.exp().sum(-1) == pytest.approx(torch.ones(50), abs=1e-5)
    others = torch.ones_like(t, dtype=torch.bool).scatter(-1, ids, False)
    t_rest, s_rest = (x.masked_fill(~others, float("-inf")).log_softmax(-1) for x in (t, s))
    among = (t_rest.exp() * (t_rest - s_rest)).masked_fill(~others, 0.0).sum(-1)
    found = KeptTeacher(ids, logs).divergence(s, torch.logsumexp(s, -1))
    torch.testing.assert_close(found, live - logs[:, -1].exp() * among, atol=1e-4, rtol=1e-4)
    assert (found <= live + 1e-5).all() and (found >= 0).all()


@pytest.mark.parametrize(("name", "question"), [("qwen2", 0.0), ("gpt2", 0.2)])
def test_a_step_with_it_is_the_step_with_the_live_teacher(wire, store, name, question, tmp_path):
    vocabulary = wire.get_receiver(name).geometry.vocab
    whole = kept(wire, store, name, tmp_path, vocabulary - 1, bool(question))
    few = parts(wire, store, name, kept(wire, store, name, tmp_path, 8, bool(question)), question=question, taught=0.5)
    for taught in (1.0, 0.5):
        live = parts(wire, store, name, question=question, taught=taught)
        for fixed in (False, True):
            got = parts(wire, store, name, whole, fixed, question=question, taught=taught)
            assert got.keys() == live.keys()
            assert got == pytest.approx(live, abs=NEAR)
    assert 0 < few["answer/kl"] < live["answer/kl"], "fewer tokens come from below"
    assert few["answer"] == pytest.approx(live["answer"], abs=NEAR)


@torch.no_grad()
def test_every_question_of_every_passage_has_its_own(wire, store, tmp_path):
    name = "gpt2"
    receiver, held, a = wire.get_receiver(name), kept(wire, store, name, tmp_path), store.read[name]
    assert sorted(store.many.tolist()) == [1, 1, 2, 3] and len(held.ids) == 7
    for passage in range(store.size):
        for question in range(store.first[passage], store.first[passage] + store.many[passage]):
            asks, length = int(a["asks"][question]), int(a["length"][question])
            text = torch.tensor(a["ids"][passage][: a["count"][passage]])[None].long()
            row = torch.tensor(a["questions"][question][:length])[None].long()
            prefix = receiver.read(text, torch.ones_like(text, dtype=torch.bool), receiver.head_for(1))
            own = own_causal(torch.ones(1, length, dtype=torch.bool))
            h = receiver.states(
                row, positions_BT=prefix.next_B[:, None] + torch.arange(length), own_BTT=own, prefix=prefix
            )
            expected = receiver.logits(h[0, asks - 1 : length - 1]).log_softmax(-1)
            got = held.of(torch.tensor([[question]]), a["questions"].shape[1])
            there = slice(asks - 1, length - 1)
            ids, logs = got.ids[0, 0, there].long(), got.logs[0, 0, there].float()
            torch.testing.assert_close(logs[:, :-1], expected.gather(-1, ids), atol=1e-3, rtol=1e-3)
            assert logs.exp().sum(-1) == pytest.approx(torch.ones(length - asks), abs=1e-4)
            elsewhere = torch.cat([got.logs[0, 0, : asks - 1], got.logs[0, 0, length - 1 :]])
            assert (elsewhere.float() < -1000).all()


def test_it_is_made_once_and_goes_on_where_it_was_stopped(wire, store, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "PART", 1)
    read, count = step_of(wire, "qwen2").teacher, []

    def counting(receiver, ids_BT, *given):
        count.append(len(ids_BT))
        return read(receiver, ids_BT, *given)

    def make(top=8, name="qwen2"):
        count.clear()
        return teacher.keep(wire.get_receiver(name), store, counting, tmp_path, top, False, batch=3, asks=2)

    first = make()
    assert sum(count) == 5, "a passage with three questions is read twice"
    assert torch.equal(make().logs, first.logs) and not count
    lost = sorted(next(tmp_path.iterdir()).glob("*.npz"))[2]
    lost.unlink()
    assert torch.equal(make().logs, first.logs) and sum(count) in (1, 2)
    make(top=9)
    assert sum(count) == 5, "another number of tokens is another teacher"
    make(name="gpt2")
    assert sum(count) == 5, "another receiver is another teacher"
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(UserError, match=r"kl\.top is a number from 1 to below"):
        make(top=10_000)


def test_processes_make_a_share_of_the_files_each(wire, store, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "PART", 1)
    write, made, now = teacher._write, {0: 0, 1: 0}, [0]

    def counted(*given) -> None:
        made[now[0]] += 1
        write(*given)

    def of(rank: int, wait=lambda: None) -> teacher.Kept:
        now[0] = rank
        reader, read = wire.get_receiver("qwen2"), step_of(wire, "qwen2").teacher
        return teacher.keep(reader, store, read, tmp_path, 16, False, share=(rank, 2), wait=wait)

    monkeypatch.setattr(teacher, "_write", counted)
    both = of(0, wait=lambda: of(1))
    assert made == {0: 2, 1: 2}
    alone = kept(wire, store, "qwen2", tmp_path / "alone")
    assert torch.equal(both.ids, alone.ids) and torch.allclose(both.logs, alone.logs, atol=NEAR)


@torch.no_grad()
def test_32_tokens_of_the_shipped_reader_leave_less_than_a_tenth(tmp_path):
    wire = Wire.from_pretrained("sandbox", receivers=["llama"])
    name, short = "llama", [row for row in read_examples(shipped_valid()) if len(row.context) < 400]
    rows, shapes = Random(0).sample(short, 12), CorpusConfig(longest=100, row=60, asked=40, threads=1)
    store = question_store(rows, wire.encoder, {name: wire.get_receiver(name).prompt}, shapes)
    step = Step(wire, {"answer": AnswerConfig().build(), "kl": KLConfig().build()}, 60, 1, [name])
    found = []
    for held in (None, teacher.keep(wire.get_receiver(name), store, step.teacher, tmp_path, 32, False)):
        drawn = batches(store, name, held)
        batch = drawn.at(torch.arange(store.size), torch.zeros(store.size, 1))
        parts = step(batch, "questions", 8, None, "context", 0.0, torch.Generator())[1]
        found.append(float(parts[f"{name}/answer/kl"]))
    live, near = found
    assert 0.9 * live < near < live


def test_other_weights_are_another_teacher(tiny_readers, store):
    receiver = load_receiver(tiny_readers["qwen2"], "qwen2")
    before = teacher.digest(receiver, store, 8, False)
    assert before == teacher.digest(load_receiver(tiny_readers["qwen2"], "qwen2"), store, 8, False)
    receiver.model.get_input_embeddings().weight.data[5] += 1
    assert teacher.digest(receiver, store, 8, False) != before


def test_a_step_reads_no_text_and_waits_for_nothing(wire, store, tmp_path, monkeypatch):
    held, step = kept(wire, store, "qwen2", tmp_path), step_of(wire, "qwen2")
    batch = batches(store, "qwen2", held).at(torch.arange(4), torch.zeros(4, 2))
    monkeypatch.setattr(step, "teacher", lambda *given: pytest.fail("the live teacher was asked"))
    step.fixed = True
    work = step.cut(batch, "questions", 0.0, torch.Generator())
    with NothingWaits():
        step.losses(work, 4)[0].backward()
    wire.zero_grad()


def test_rows_that_are_drawn_have_the_live_teacher(wire, store, tmp_path):
    class Drawn(Recall):
        source = "questions"

    held, step = kept(wire, store, "qwen2", tmp_path), step_of(wire, "qwen2")
    step.objectives["recall"] = Drawn(RecallConfig(rows=1))
    batch = batches(store, "qwen2", held).at(torch.arange(4), torch.zeros(4, 2))
    assert "logs" not in step.cut(batch, "questions", 0.0, torch.Generator()).read["qwen2"]


def test_a_step_in_parts_cuts_it_with_its_passages(wire, store, tmp_path):
    step = step_of(wire, "qwen2", taught=0.5, tokens=3)
    held = kept(wire, store, "qwen2", tmp_path)
    batch = batches(store, "qwen2", held).at(torch.arange(4), torch.tensor([[0.0, 0.9]] * 4))
    work = step.cut(batch, "questions", 0.0, torch.Generator().manual_seed(0))
    works = split(work, 2, step)
    assert [len(one.read["qwen2"]["logs"]) for one, _ in works] == [2, 2]
    with torch.no_grad():
        whole, found = step.losses(work, 4)
        parts = [(share, *step.losses(one, 4)) for one, share in works]
    assert float(sum(share * loss for share, loss, _ in parts)) == pytest.approx(float(whole), abs=NEAR)
    kl = sum(share * figures["qwen2/answer/kl"] for share, _, figures in parts)
    assert float(kl) == pytest.approx(float(found["qwen2/answer/kl"]), abs=NEAR) and kl > 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["objectives.kl.temperature=2.0"], r"kl\.cache holds the teacher at temperature 1"),
        (["objectives.states={type: hidden-states}"], "'states' needs the teacher itself"),
        (["objectives.first={type: kl, tokens: 1}"], "'first' needs the teacher itself"),
        (["objectives.first={type: kl, tokens: 1, cache: elsewhere}"], "the same cache and top"),
        (["own_tokens.share=0.5"], "own_tokens has it read the receiver's own"),
    ],
)
def test_what_is_not_kept_is_refused(tiny_config, tmp_path, more, said):
    with pytest.raises(UserError, match=said):
        train(tiny_config, [f"objectives.kl.cache={tmp_path}", *more], out=tmp_path / "run")


def test_a_run_keeps_it_and_learns_what_it_does_from_the_live_one(tiny_config, tmp_path):
    more = ["steps=2", "eval_every=0", "links=[llama]", "corpus.contexts=9", "corpus.made=0"]
    more += ["stages=[{until: 1.0, questions: 1.0}]"]
    rows = {}
    for name, own in (("live", []), ("kept", [f"objectives.kl.cache={tmp_path / 'cache'}", "objectives.kl.top=323"])):
        train(tiny_config, [*more, *own], out=tmp_path / name)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        rows[name] = [row for row in map(json.loads, lines) if row["source"] == "questions"]
    assert len(rows["kept"]) == 2
    assert [path.name.rsplit("-", 1)[0] for path in (tmp_path / "cache").iterdir()] == ["teacher-llama"]
    for live, held in zip(rows["live"], rows["kept"], strict=True):
        for key in ("llama/answer/kl", "llama/answer", "loss"):
            assert held[key] == pytest.approx(live[key], rel=1e-2)
