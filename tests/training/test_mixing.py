"""Passages given as text, and answer tokens that are the model's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from contracts.matrix import INJECTIONS, config
from contracts.waits import NothingWaits
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.injections import InjectionConfig
from latentwire.link import LinkConfig
from latentwire.receivers.receiver import pad
from latentwire.receivers.rows import row_states
from latentwire.training.checkpoint import Progress
from latentwire.training.config import OwnTokens, TextWarmup, TrainConfig
from latentwire.training.mixing import mixed, with_own_tokens, with_text
from latentwire.training.schedules import Schedules
from latentwire.wire import Wire, WireConfig

WORDS = (
    "The Norwegian expedition to the South Pole was led by Roald Amundsen. He and four others arrived at the pole on "
    "14 December 1911, five weeks before a British party led by Robert Falcon Scott. The city has 1,204 inhabitants."
)


def work(run, source, text=0.0, own=0.0, beside=False):
    generator = torch.Generator().manual_seed(5)
    plain = run.step.cut(run.stores[source].draw(0, 0, generator), source, 0.5, generator)
    return mixed(plain, source, text, beside, own, generator)


@torch.no_grad()
@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_passage_given_as_text_is_read_as_its_text_and_its_neighbour_as_its_latents(tiny_readers, injection):
    torch.manual_seed(0)
    links = {
        name: LinkConfig(receiver=str(tiny_readers[name]), injection=config(InjectionConfig, injection, tiny_readers))
        for name in tiny_readers
        if name != "bert"  # a sentence encoder
    }
    encoder = LMEncoderConfig(d_z=16, ratios=(4,), window=64, init=str(tiny_readers["llama"]))
    wire = Wire.create(WireConfig(encoder, links), [WORDS, WORDS[:100]]).eval()
    texts = [WORDS[:60], WORDS[60:160]]
    latents = wire.encode_latents(texts, ratio=4)
    for name in links:
        receiver = wire.get_receiver(name)
        mask, ids = pad(receiver.prompt.context_ids(texts), receiver.prompt.pad_id, receiver.device)
        rows = torch.tensor(receiver.prompt.question_ids(["Who led it?"])).expand(2, -1)[:, None]
        read = {"context": ids, "count": mask.sum(-1), "instead": torch.tensor([True, False])}
        prefix = wire.prefix(name, latents)
        got = row_states(receiver, with_text(receiver, prefix, read), rows)
        as_text = row_states(receiver, receiver.read(ids, mask, receiver.head_for(2)), rows)
        as_latents = row_states(receiver, prefix, rows)
        torch.testing.assert_close(got[0], as_text[0], atol=2e-4, rtol=1e-3, msg=name)
        torch.testing.assert_close(got[1], as_latents[1], atol=2e-4, rtol=1e-3, msg=name)
        assert not torch.allclose(got[0], as_latents[0], atol=1e-2)
        both = row_states(receiver, with_text(receiver, prefix, {**read, "beside": read["instead"]}), rows)
        assert not torch.allclose(both[0], as_text[0], atol=1e-3), "latents beside the text must be seen"


def test_text_instead_of_latents_teaches_nothing_and_beside_them_it_does(run):
    def taught(**how):
        loss, _ = run.step.losses(work(run, "questions", text=1.0, **how), 4)
        given = torch.autograd.grad(loss, list(run.wire.encoder.parameters()), allow_unused=True)
        return sum(float(g.abs().sum()) for g in given if g is not None)

    assert taught(beside=False) == 0
    assert taught(beside=True) > 0


def test_tokens_of_ones_own_are_the_most_likely_ones_where_they_are_wanted(run):
    one = work(run, "questions", own=1.0)
    read, receiver = one.read["llama"], run.wire.get_receiver("llama")
    with torch.no_grad():
        prefix = run.wire.prefix("llama", run.wire.encoder(one.source, 4))
        h_BRTE = row_states(receiver, prefix, read["rows"])
        fed = with_own_tokens(receiver, h_BRTE, read["rows"], read["own"])
    answer = read["weight"] >= 1
    assert torch.equal(read["own"], answer), "every token of an answer and nothing else"
    assert torch.equal(fed[~answer], read["rows"][~answer])
    said = receiver.logits(h_BRTE).argmax(-1)
    for place in answer.nonzero().tolist():
        b, r, t = place
        assert fed[b, r, t] == said[b, r, t - 1]
    assert not torch.equal(fed, read["rows"])


def test_what_must_be_predicted_stays_the_true_answer(run):
    """The first token of an answer has nothing but given tokens before it: its loss does not change."""
    plain, own = work(run, "questions"), work(run, "questions", own=1.0)
    for each in (plain, own):
        weight = each.read["llama"]["weight"]
        first = (weight >= 1) & ((weight >= 1).cumsum(-1) == 1)
        each.read["llama"]["weight"] = first.float()
        each.read["gemma"]["weight"] = torch.zeros_like(each.read["gemma"]["weight"])
    with torch.no_grad():
        loss, parts = run.step.losses(plain, 4)
        loss_own, parts_own = run.step.losses(own, 4)
    torch.testing.assert_close(parts["llama/answer"], parts_own["llama/answer"])
    torch.testing.assert_close(parts["llama/answer/kl"], parts_own["llama/answer/kl"])
    torch.testing.assert_close(loss, loss_own)


@pytest.mark.parametrize("how", [{"text": 0.5}, {"text": 0.5, "beside": True}, {"own": 0.5}])
def test_such_a_step_can_be_recorded(full_run, how):
    run = full_run
    one = work(run, "questions", **how)
    loss, _ = run.step.losses(one, 4)
    plain, _ = run.step.losses(work(run, "questions"), 4)
    assert not torch.equal(loss, plain)
    run.step.fixed = True
    with NothingWaits():
        run.step.losses(one, 4)[0].backward()
    torch.testing.assert_close(run.step.losses(one, 4)[0], loss)


def test_nothing_is_mixed_unless_it_is_asked_for(run):
    plain = work(run, "questions")
    assert set(plain.read["llama"]) == {"context", "count", "rows", "weight"}
    assert set(work(run, "text", own=1.0).read["llama"]) == set(plain.read["llama"]), "text has no answers"


def test_shares_follow_their_schedules(run):
    made = TrainConfig(text_warmup=TextWarmup(0.8, 0.1, until=0.5), own_tokens=OwnTokens(0.4, begin=0.5, end=1.0))
    plans = Schedules(made, run)

    def at(step):
        progress = Progress(step=step, total=100)
        return round(plans.text_share(progress), 4), round(plans.own_share(progress), 4)

    assert [at(step) for step in (0, 25, 50, 75, 100)] == [(0.8, 0), (0.45, 0), (0.1, 0), (0.1, 0.2), (0.1, 0.4)]
    off = Schedules(replace(made, text_warmup=TextWarmup(), own_tokens=OwnTokens()), run)
    assert off.text_share(Progress(total=9)) == off.own_share(Progress(total=9)) == 0
