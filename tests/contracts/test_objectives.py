"""What every objective promises, alone in a whole training step over receivers of four families."""

from __future__ import annotations

import pytest
import torch

from conftest import FAMILIES, WORDS
from contracts.matrix import OBJECTIVES, config
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.link import LinkConfig
from latentwire.objectives import ObjectiveConfig
from latentwire.objectives.base import Passages
from latentwire.training.batches import Batch
from latentwire.training.step import Step
from latentwire.wire import Wire, WireConfig

ROW = 12


@pytest.fixture(params=OBJECTIVES)
def objective(request, tiny_readers):
    return config(ObjectiveConfig, request.param, tiny_readers).build()


def passages() -> Passages:
    """Two passages of 20 and 9 tokens; the padding behind them is a token of its own (99)."""
    generator = torch.Generator().manual_seed(0)

    def ids(*shape):
        return torch.randint(5, 90, shape, generator=generator)

    place = torch.arange(24)
    count = torch.tensor([20, 9])
    following, many = ids(2, ROW), torch.tensor([ROW, 5])
    questions, length = ids(2, 2, ROW), torch.tensor([[11, 8], [9, 12]])
    return Passages(
        ids_BT=ids(2, 24).masked_fill(place >= count[:, None], 99),
        count_B=count,
        newline=4,
        next_BT=following.masked_fill(torch.arange(ROW) >= many[:, None], 99),
        next_count_B=many,
        questions_BRT=questions.masked_fill(torch.arange(ROW) >= length[..., None], 99),
        asks_BR=torch.tensor([[8, 5], [6, 7]]),
        length_BR=length,
    )


def test_no_pad_and_no_first_token_is_a_target(objective):
    rows = objective.cut(passages(), ROW, torch.Generator().manual_seed(1))
    if rows is None:
        assert objective.source is None, "an objective without rows of its own judges those of others"
        return
    assert rows.ids_BRT.shape == rows.target_BRT.shape
    assert rows.ids_BRT.shape[-1] <= ROW
    assert rows.target_BRT.any()
    assert not rows.target_BRT[..., 0].any()
    assert not (rows.ids_BRT[rows.target_BRT] == 99).any()


def test_cuts_follow_from_the_generator_alone(objective):
    one, two = (objective.cut(passages(), ROW, torch.Generator().manual_seed(3)) for _ in range(2))
    if one is not None:
        assert torch.equal(one.ids_BRT, two.ids_BRT)


def test_losses_of_tokens_are_finite_and_grow_with_what_they_measure(objective):
    low, high = torch.tensor([0.1, 0.2]), torch.tensor([2.0, 3.0])
    assert (objective.loss(high, high) > objective.loss(low, low)).all()
    assert objective.loss(low, low).isfinite().all()


@pytest.fixture(scope="module")
def wire(tiny_readers):
    torch.manual_seed(0)
    encoder = LMEncoderConfig(d_z=16, ratios=(4, 8), window=64, init=str(tiny_readers["llama"]))
    links = {name: LinkConfig(receiver=str(tiny_readers[name])) for name in FAMILIES}
    return Wire.create(WireConfig(encoder, links), [WORDS, WORDS[:100]])


@pytest.mark.parametrize("family", FAMILIES)
def test_in_a_step_it_teaches_encoder_and_link_and_no_receiver(objective, wire, tiny_readers, family):
    own = {objective.config.get_choice_name(type(objective.config)): objective}
    if objective.source is None:
        own["answer"] = config(ObjectiveConfig, "answer", tiny_readers).build()
    source = objective.source or "questions"
    receiver = wire.get_receiver(family)
    before, frozen = receiver.fingerprint(), [p.requires_grad for p in receiver.model.parameters()]
    step = Step(wire, own, ROW, 6, [family])
    wire.zero_grad()
    batch = Batch({"ids": passages().ids_BT.clamp_max(90), "count": torch.tensor([20, 9])}, {family: passages()})
    loss, parts = step(batch, source, 4, None, "context", 0.5, torch.Generator().manual_seed(0))
    assert loss.isfinite() and loss > 0
    assert all(torch.as_tensor(value).isfinite() for value in parts.values())
    loss.backward()
    grads = {name: p.grad for name, p in wire.named_parameters() if p.grad is not None}
    moved = {name.partition(".")[0] for name, grad in grads.items() if grad.abs().sum() > 0}
    assert moved == {"encoder", "links"}
    assert not any(frozen) and receiver.fingerprint() == before
    others = [p for name in FAMILIES if name != family for p in wire.links[name].parameters()]
    assert all(p.grad is None for p in others)
