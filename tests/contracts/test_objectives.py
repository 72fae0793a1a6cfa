"""What every objective promises, alone in a whole training step over receivers of four families."""

from __future__ import annotations

import pytest
import torch

from conftest import FAMILIES, WORDS
from contracts.matrix import OBJECTIVES, config
from contracts.waits import NothingWaits
from latentwire.adapters.linear import LinearAdapterConfig
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.injections.soft_tokens import SoftTokensConfig
from latentwire.link import LinkConfig
from latentwire.objectives import Objective, ObjectiveConfig, Schedule
from latentwire.objectives.base import Passages, Said
from latentwire.objectives.scale import gains
from latentwire.receivers.load import load_receiver
from latentwire.training.batches import Batch
from latentwire.training.step import Step
from latentwire.wire import Wire, WireConfig

ROW = 12


@pytest.fixture(params=OBJECTIVES)
def objective(request, tiny_readers):
    return config(ObjectiveConfig, request.param, tiny_readers).build()


def passages(pad: int = 99) -> Passages:
    """Two passages of 20 and 9 tokens; the padding behind them is a token of its own."""
    generator = torch.Generator().manual_seed(0)

    def ids(*shape):
        return torch.randint(5, 90, shape, generator=generator)

    place = torch.arange(24)
    count = torch.tensor([20, 9])
    following, many = ids(2, ROW), torch.tensor([ROW, 5])
    questions, length = ids(2, 2, ROW), torch.tensor([[11, 8], [9, 12]])
    return Passages(
        ids_BT=ids(2, 24).masked_fill(place >= count[:, None], pad),
        count_B=count,
        newline=4,
        next_BT=following.masked_fill(torch.arange(ROW) >= many[:, None], pad),
        next_count_B=many,
        questions_BRT=questions.masked_fill(torch.arange(ROW) >= length[..., None], pad),
        asks_BR=torch.tensor([[8, 5], [6, 7]]),
        length_BR=length,
    )


def test_no_pad_and_no_first_token_is_a_target(objective):
    rows = objective.cut(passages(), ROW, torch.Generator().manual_seed(1))
    assert (rows is not None) == (objective.role == "rows")
    if rows is None:
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


def test_a_measure_of_tokens_is_finite_and_learnt_from_by_the_student_alone(objective):
    student, teacher = (torch.randn(3, 7, generator=torch.Generator().manual_seed(n)).requires_grad_() for n in (0, 1))
    log, labels = student.logsumexp(-1), torch.tensor([0, 3, 6])
    ce = torch.nn.functional.cross_entropy(student, labels, reduction="none")
    if type(objective).inside is Objective.inside:
        loss = objective.measure(Said(student, log, labels, ce, teacher[:2]))
        assert loss.shape == ((2,) if objective.taught else (3,))
    else:  # it looks at states inside the receiver, which the step hands over without their gradient
        loss = objective.inside([student[:2].reshape(1, 1, 2, 7)], [teacher[:2].detach().reshape(1, 1, 2, 7)])
        assert loss.shape == (1, 1, 2)
    assert loss.isfinite().all()
    loss.sum().backward()
    assert student.grad is not None and student.grad.abs().sum() > 0 and teacher.grad is None


@pytest.fixture(scope="module")
def wire(tiny_readers):
    torch.manual_seed(0)
    encoder = LMEncoderConfig(d_z=16, ratios=(4, 8), window=64, init=str(tiny_readers["llama"]))
    # a learned gain in each link, for the objective that wants one
    links = {
        name: LinkConfig(receiver=str(tiny_readers[name]), injection=SoftTokensConfig(multiple=1.0))
        if name in ("llama", "gemma")
        else LinkConfig(receiver=str(tiny_readers[name]), adapter=LinearAdapterConfig())
        for name in FAMILIES
    }
    wire = Wire.create(WireConfig(encoder, links), [WORDS, WORDS[:100]])
    with torch.no_grad():
        for name in FAMILIES:  # elsewhere than where a penalty holds them
            for gain in gains(wire.links[name]):
                gain.fill_(1.5)
    return wire


@pytest.fixture(scope="module")
def half_wire(wire, tiny_readers):
    """A wire whose receiver is in bfloat16."""
    receiver = load_receiver(tiny_readers["llama"], "llama", dtype=torch.bfloat16)
    return Wire(WireConfig(wire.settings.encoder, wire.settings.links), {"llama": receiver})


def step_of(objective: Objective, wire: Wire, readers, family: str) -> Step:
    """A step with this objective, and with rows to judge if it has none, or a judge if nothing else is learnt from."""
    own = {objective.config.get_choice_name(type(objective.config)): objective}
    if not objective.labelled:
        own |= {name: config(ObjectiveConfig, name, readers).build() for name in ("answer", "kl")}
    if not objective.concerns(wire.get_receiver(family), wire.encoder):
        with pytest.raises(UserError, match="takes part for none of"):
            Step(wire, own | {"answer": config(ObjectiveConfig, "answer", readers).build()}, ROW, 6, [family])
        pytest.skip("it is for receivers that cut text as the encoder does")
    if objective.role != "rows":
        own["answer"] = config(ObjectiveConfig, "answer", readers).build()
    return Step(wire, own, ROW, 6, [family])


def work_of(step: Step, source: str, family: str, pad: int = 99):
    own = passages(pad)
    batch = Batch({"ids": own.ids_BT.clamp_max(90), "count": own.count_B}, {family: own})
    return step.cut(batch, source, 0.5, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_in_a_step_it_teaches_encoder_and_link_and_no_receiver(objective, wire, tiny_readers, family):
    source = objective.source or "questions"
    receiver = wire.get_receiver(family)
    before, frozen = receiver.fingerprint(), [p.requires_grad for p in receiver.model.parameters()]
    kept = set(wire.state_dict())
    step = step_of(objective, wire, tiny_readers, family)
    wire.zero_grad()
    loss, parts = step.losses(work_of(step, source, family), 4)
    assert loss.isfinite() and loss > 0
    assert all(torch.as_tensor(value).isfinite() for value in parts.values())
    loss.backward()
    grads = {name: p.grad for name, p in wire.named_parameters() if p.grad is not None}
    moved = {name.partition(".")[0] for name, grad in grads.items() if grad.abs().sum() > 0}
    assert moved == {"encoder", "links"}
    assert not any(frozen) and receiver.fingerprint() == before
    others = [p for name in FAMILIES if name != family for p in wire.links[name].parameters()]
    assert all(p.grad is None for p in others)
    # what it has of its own learns as well, and is no part of the wire
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in step.heads.parameters())
    assert set(wire.state_dict()) == kept


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_its_weight_counts_and_without_one_it_costs_nothing(objective, wire, tiny_readers, family):
    source, weight = objective.source or "questions", objective.config.weight
    step = step_of(objective, wire, tiny_readers, family)
    whole = step.losses(work_of(step, source, family), 4)[0]
    try:
        objective.config.weight = Schedule(0.0)
        none = work_of(step, source, family)
        loss, parts = step.losses(none, 4)
        objective.config.weight = Schedule(2 * weight.value)
        twice = step.losses(work_of(step, source, family), 4)[0]
    finally:
        objective.config.weight = weight
    torch.testing.assert_close(twice - whole, whole - loss, rtol=1e-3, atol=1e-4)
    assert (twice - whole).abs() > 1e-5
    if objective.role != "rows":
        alone = step_of(config(ObjectiveConfig, "answer", tiny_readers).build(), wire, tiny_readers, family)
        expected, figures = alone.losses(work_of(alone, source, family), 4)
        assert torch.equal(loss, expected) and parts.keys() == figures.keys() and none.active == ("answer",)


def test_a_step_of_fixed_shape_waits_for_nothing_and_padding_does_not_matter(objective, wire, tiny_readers):
    source = objective.source or "questions"
    step = step_of(objective, wire, tiny_readers, "llama")
    loss, parts = step.losses(work_of(step, source, "llama"), 4)
    step.fixed = True
    work = work_of(step, source, "llama", pad=98)
    with NothingWaits():
        fixed, fixed_parts = step.losses(work, 4)
        fixed.backward()
    torch.testing.assert_close(fixed, loss)
    torch.testing.assert_close(fixed_parts, parts)


def test_it_is_learnt_from_in_half_precision_as_on_a_gpu(objective, half_wire, tiny_readers):
    source = objective.source or "questions"
    step = step_of(objective, half_wire, tiny_readers, "llama")
    with torch.autocast("cpu", torch.bfloat16):
        loss, parts = step.losses(work_of(step, source, "llama"), 4)
    loss.backward()
    assert loss.isfinite() and all(value.isfinite() for value in parts.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in step.heads.parameters())
