"""LoRA of a link acts behind latents alone, is learnt, saved and loaded with the link; the receiver stays frozen."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import FAMILIES, WORDS
from latentwire.config import decode
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.evaluation.runner import evaluate
from latentwire.link import LinkConfig
from latentwire.objectives.answer import AnswerConfig
from latentwire.objectives.kl import KLConfig
from latentwire.receivers.attention import own_causal
from latentwire.receivers.decode import generate
from latentwire.receivers.load import load_receiver
from latentwire.receivers.lora import LoRAConfig
from latentwire.training.batches import Batches
from latentwire.training.config import CorpusConfig
from latentwire.training.corpus import question_store
from latentwire.training.step import Step
from latentwire.types import Example
from latentwire.wire import Wire, WireConfig

ROWS = [
    Example("1", WORDS[:60], "Who led the expedition?", ("Roald Amundsen",)),
    Example("2", WORDS[60:160], "When did they arrive?", ("14 December 1911",)),
]


def wire_of(readers, names=FAMILIES, **lora) -> Wire:
    torch.manual_seed(0)
    made = LoRAConfig(**{"layers": 1, "rank": 2, **lora})
    links = {name: LinkConfig(receiver=str(readers[name]), lora=made) for name in names}
    encoder = LMEncoderConfig(d_z=16, ratios=(4,), window=200, init=str(readers["llama"]))
    return Wire.create(WireConfig(encoder, links), [WORDS, WORDS[:100]])


def learnt(wire: Wire) -> Wire:
    """The wire as if its LoRA had been trained: what starts at zero no longer is."""
    for name in wire.receivers:
        for key, parameter in wire.links[name].lora.named_parameters():
            if ".b." in key:
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return wire.eval()


@pytest.fixture(scope="module")
def wire(tiny_readers):
    pytest.importorskip("peft", reason="the extra `lora` is not installed")
    return learnt(wire_of(tiny_readers))


def behind(receiver, prefix):
    """Logits of two tokens on top of a prefix."""
    own, ids = own_causal(torch.ones(1, 2, dtype=torch.bool)), torch.tensor([[7, 9]])
    return receiver.logits(
        receiver.states(ids, positions_BT=prefix.next_B[:, None] + torch.arange(2), own_BTT=own, prefix=prefix)
    )


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_it_acts_behind_latents_and_the_receiver_is_frozen_to_the_bit_behind_text(tiny_readers, wire, family):
    bare, receiver = load_receiver(tiny_readers[family]), wire.get_receiver(family)
    latents = wire.latents(wire.encode([WORDS], ratio=4))
    ids = torch.tensor(receiver.prompt.context_ids([WORDS]))
    mask = torch.ones_like(ids, dtype=torch.bool)
    for _ in range(2):  # whatever was read before
        on = wire.prefix(family, latents)
        assert on.lora
        assert not torch.allclose(behind(receiver, on), behind(bare, on), atol=1e-2)
        text = receiver.read(ids, mask, receiver.head_for(1))
        assert not text.lora
        assert torch.equal(behind(receiver, text), behind(bare, bare.read(ids, mask, bare.head_for(1))))
    assert receiver.fingerprint() == bare.fingerprint()


@torch.no_grad()
def test_it_starts_as_the_frozen_receiver(tiny_readers, wire):
    fresh = wire_of(tiny_readers, ["llama"]).eval()
    prefix = fresh.prefix("llama", fresh.latents(fresh.encode([WORDS], ratio=4)))
    expected = behind(load_receiver(tiny_readers["llama"]), prefix)
    torch.testing.assert_close(behind(fresh.get_receiver("llama"), prefix), expected, atol=0, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_it_though_text_is_read_before_the_backward_pass(wire, family):
    receiver, lora = wire.get_receiver(family), wire.links[family].lora
    wire.zero_grad()
    loss = behind(receiver, wire.prefix(family, wire.encode_latents([WORDS], 4))).square().mean()
    behind(receiver, receiver.head())  # peft's own switch would take the gradients away here
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lora.parameters())
    own = {id(p) for p in lora.parameters()}
    assert all(p.grad is None and not p.requires_grad for p in receiver.model.parameters() if id(p) not in own)
    wire.zero_grad()


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_of_decoding_has_it(wire, family):
    receiver = wire.get_receiver(family)
    prefix = wire.prefix(family, wire.latents(wire.encode([e.context for e in ROWS], ratio=4)))
    tails = receiver.prompt.question_ids([e.question for e in ROWS])
    got = generate(receiver, prefix, tails, max_new_tokens=5, min_new_tokens=5).ids
    for row, tail in enumerate(tails):
        ids, alone = list(tail), prefix.take(torch.tensor([row]))
        for _ in range(5):
            own = own_causal(torch.ones(1, len(ids), dtype=torch.bool))
            place = alone.next_B[:, None] + torch.arange(len(ids))
            said = receiver.logits(
                receiver.states(torch.tensor([ids]), positions_BT=place, own_BTT=own, prefix=alone)[0, -1]
            )
            said[receiver.prompt.eos_id] = float("-inf")
            ids.append(int(said.argmax()))
        assert got[row] == ids[len(tail) :]


def test_text_conditions_are_those_of_the_frozen_receiver(tiny_readers, wire):
    plain = wire_of(tiny_readers, rank=1)
    plain.load_state_dict({k: v for k, v in wire.state_dict().items() if ".lora." not in k}, strict=False)
    given = {"ratios": (4,), "conditions": ["text", "none", "budget", "latents"], "progress": False}
    with_lora, without = (evaluate(w.eval(), ROWS, **given)["rows"] for w in (wire, plain))
    for mine, its in zip(with_lora, without, strict=True):
        key = mine["receiver"], mine["condition"]
        assert (mine["nll"] == its["nll"]) == (mine["condition"] != "latents"), key


def test_it_is_saved_with_the_wire_and_a_loaded_wire_answers_identically(wire, tmp_path):
    wire.save_pretrained(tmp_path / "wire")
    again = Wire.from_pretrained(tmp_path / "wire")
    packet = wire.encode([WORDS], ratio=4)[0]
    latents = wire.latents([packet])
    for name in wire.receivers:
        assert again.links[name].config.lora == wire.links[name].config.lora
        said = [w.receiver(name).generate(packet, "Who led it?") for w in (wire, again)]
        assert said[0] == said[1]
        with torch.no_grad():
            one, other = (behind(w.get_receiver(name), w.prefix(name, latents)) for w in (wire, again))
        assert torch.equal(one, other)
    path = tmp_path / "wire" / "model.safetensors"
    state = load_file(path)
    lost = next(key for key in state if ".lora." in key)
    save_file({key: value for key, value in state.items() if key != lost}, path)
    with pytest.raises(UserError, match="do not fit"):
        Wire.from_pretrained(tmp_path / "wire")


def test_a_training_step_teaches_it_and_not_the_teacher(tiny_readers, wire):
    name = "qwen2"
    receiver = wire.get_receiver(name)
    shapes = CorpusConfig(longest=200, row=72, stretch=2.0, threads=1)
    store = question_store(ROWS, wire.encoder, {name: receiver.prompt}, shapes)
    batch = Batches(store, {name: 4}, 2, 1, torch.device("cpu")).at(torch.arange(2), torch.zeros(2, 1))
    step = Step(wire, {"answer": AnswerConfig().build(), "kl": KLConfig().build()}, 72, 50, [name])
    rows = batch.read[name]
    bare = load_receiver(tiny_readers[name])
    given = rows.ids_BT, rows.count_B, rows.questions_BRT
    assert torch.equal(step.teacher(receiver, *given), step.teacher(bare, *given))
    wire.zero_grad()
    step(batch, "questions", 4, None, "context", 0.0, torch.Generator().manual_seed(0))[0].backward()
    assert all(p.grad.abs().sum() > 0 for p in wire.links[name].lora.parameters())
    assert all(p.grad is None for p in wire.links["llama"].lora.parameters())
    wire.zero_grad()


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_compiled_layers_are_switched_too_and_stay_few(wire, family, monkeypatch):
    from torch._dynamo.testing import CompileCounter

    receiver = wire.get_receiver(family)
    counter, plain = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **more: plain(f, backend=counter, **more))
    latents = wire.latents(wire.encode([WORDS], ratio=4))
    on, off = wire.prefix(family, latents), receiver.head()
    expected = [behind(receiver, prefix) for prefix in (on, off)]
    torch._dynamo.reset()
    try:
        receiver.layers.compile()
        for _ in range(3):
            for prefix, want in zip((on, off), expected, strict=True):
                torch.testing.assert_close(behind(receiver, prefix), want, atol=1e-5, rtol=1e-5)
    finally:
        receiver.layers.compile(False)
        receiver.layers.fast = None
        torch._dynamo.reset()
    # layers with LoRA and those without, each on and off: other prefixes are other shapes as well
    assert 2 <= counter.frame_count <= 4


def test_what_cannot_work_is_refused(tiny_readers, wire, monkeypatch):
    def link(**lora) -> None:
        LoRAConfig(**lora).build(load_receiver(tiny_readers["llama"]))

    with pytest.raises(UserError, match=r"lora\.layers is 9, but 'llama' has 2 layers"):
        link(layers=9)
    with pytest.raises(UserError, match=r"names 'c_attn', which is no linear layer.*q_proj"):
        link(layers=1, targets=("q_proj", "c_attn"))
    with pytest.raises(UserError, match="names 'mlp', which is no linear layer"):
        link(layers=1, targets=("mlp",))
    with pytest.raises(UserError, match=r"lora\.rank must be above 0"):
        link(layers=1, rank=0)
    with pytest.raises(UserError, match="has LoRA of another link"):
        LoRAConfig(layers=1).build(wire.get_receiver("llama"))
    with pytest.raises(UserError, match="LinkConfig"):
        decode(LinkConfig, {"lora": {"depth": 3}})


def test_without_the_package_the_extra_is_named(tiny_readers, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"latentwire\[lora\]"):
        LoRAConfig(layers=1).build(load_receiver(tiny_readers["llama"]))
