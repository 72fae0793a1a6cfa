"""Objectives that judge the targets of others: which of them, and by what."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from conftest import FAMILIES
from contracts.test_objectives import passages, step_of, wire, work_of
from latentwire.errors import UserError
from latentwire.injections.cross_attention import CrossAttentionConfig
from latentwire.objectives.answer import AnswerConfig
from latentwire.objectives.base import Said, Targets
from latentwire.objectives.first_entropy import FirstEntropyConfig
from latentwire.objectives.first_token import FirstTokenConfig
from latentwire.objectives.first_tokens import FirstTokensConfig
from latentwire.objectives.hidden_states import HiddenStatesConfig
from latentwire.objectives.kl import KLConfig
from latentwire.objectives.label_smoothing import LabelSmoothingConfig
from latentwire.receivers.rows import row_states
from latentwire.training.judging import rows_of, watched
from latentwire.training.step import Step

__all__ = ["wire"]
# two rows: two tokens of a question that count a little, then answers of three tokens and of one
WEIGHT = torch.tensor([[[0.2, 0.2, 1.0, 1.0, 1.0, 0.0], [0.0, 0.2, 0.2, 1.0, 0.0, 0.0]]])


def targets(ce=None, weight=WEIGHT, progress=0.0) -> Targets:
    return Targets(torch.ones_like(weight) if ce is None else ce, weight, torch.tensor(progress))


def said(few: int | None = None) -> Said:
    """Logits of five tokens of a vocabulary of nine."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(5, 9, generator=generator) for _ in range(2))
    labels = torch.tensor([1, 8, 0, 4, 4])
    ce = F.cross_entropy(student, labels, reduction="none")
    return Said(student, student.logsumexp(-1), labels, ce, None if few is None else teacher[:few])


def test_tokens_of_an_answer_are_counted_and_those_of_its_question_are_not():
    assert targets().place_BRT.tolist() == [[[-1, -1, 0, 1, 2, -1], [-1, -1, -1, 0, -1, -1]]]


def test_the_first_token_is_that_of_the_answer():
    assert FirstTokenConfig().build().share(targets()).tolist() == [[[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0]]]


@pytest.mark.parametrize(("first", "factor"), [(3.0, 1.5), (1.0, 1.0), (100.0, 4.0)])
def test_first_tokens_that_lag_count_more_up_to_the_factor_that_was_given(first, factor):
    ce = torch.full_like(WEIGHT, 2.0)
    ce[targets().place_BRT == 0] = first
    share = FirstTokenConfig(most=4.0).build().share(targets(ce))
    torch.testing.assert_close(share[targets().place_BRT == 0], torch.full((2,), factor))
    assert share.count_nonzero() == 2


def test_answers_of_one_token_have_nothing_to_lag_behind():
    one = torch.tensor([[[0.0, 1.0, 0.0]]])
    assert FirstTokenConfig(most=4.0).build().share(targets(5 * one, one)).sum() == 1


@pytest.mark.parametrize(("progress", "count"), [(0.0, 1), (0.3, 1), (0.4, 2), (0.7, 3), (1.0, 3)])
def test_the_first_tokens_grow_in_number_while_training_goes_on(progress, count):
    share = FirstTokensConfig(tokens=1, grown=3).build().share(targets(progress=progress))
    assert share.sum(-1).tolist() == [[count, 1]]
    assert FirstTokensConfig(tokens=2).build().share(targets(progress=progress)).sum(-1).tolist() == [[2, 1]]


def test_in_a_step_the_first_token_is_the_one_behind_the_question(wire):
    own = {"answer": AnswerConfig(question=0.3), "first": FirstTokenConfig(), "two": FirstTokensConfig(tokens=2)}
    step = Step(wire, {key: each.build() for key, each in own.items()}, 12, 6, ["llama"])
    work = work_of(step, "questions", "llama")
    with torch.no_grad():
        _, parts = step.losses(work, 4)
        weight = work.read["llama"]["weight"]
        asks = passages().asks_BR
        assert asks is not None
        for key, count in (("first", 1), ("two", 2)):
            place = torch.arange(weight.shape[-1])
            only = (place >= asks[..., None]) & (place < asks[..., None] + count) & (weight >= 1)
            work.read["llama"]["weight"] = only.float()  # rows whose answers end there
            expected = step.losses(work, 4)[1]["llama/answer"]
            torch.testing.assert_close(parts[f"llama/answer/{key}"], expected)
            assert abs(float(expected - parts["llama/answer"])) > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_is_that_of_the_softened_distributions_times_the_square_of_their_temperature(temperature):
    given = said(3)
    kl = KLConfig(temperature=temperature).build().measure(given)
    student, teacher = (x / temperature for x in (given.student_NV[:3], given.teacher_NV))
    expected = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(kl, temperature**2 * expected)
    same = given._replace(teacher_NV=given.student_NV)
    torch.testing.assert_close(KLConfig(temperature=temperature).build().measure(same), torch.zeros(5))


def test_divergence_is_of_all_targets_or_of_the_first_of_the_answer():
    assert torch.equal(KLConfig().build().share(targets()), WEIGHT)
    assert KLConfig(tokens=2).build().share(targets()).tolist() == [[[0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0]]]


def test_kl_without_a_teacher_says_so():
    with pytest.raises(UserError, match="nothing has read it"):
        KLConfig().build().measure(said())


def test_with_label_smoothing_the_sum_is_cross_entropy_of_smoothed_targets():
    given = said()
    summed = given.ce_N + 0.1 * LabelSmoothingConfig().build().measure(given)
    expected = F.cross_entropy(given.student_NV, given.labels_N, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(summed, expected)


def test_the_bonus_is_the_entropy_of_first_answer_tokens():
    objective, given = FirstEntropyConfig().build(), said()
    expected = torch.distributions.Categorical(logits=given.student_NV).entropy()
    torch.testing.assert_close(objective.measure(given), -expected)
    assert objective.share(targets()).sum() == 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("measure", ["mse", "cosine"])
def test_a_student_that_has_read_the_text_is_where_its_teacher_is(wire, family, measure, tiny_readers, monkeypatch):
    step = step_of(HiddenStatesConfig(measure=measure).build(), wire, tiny_readers, family)
    step.objectives["kl"] = KLConfig().build()
    work = work_of(step, "questions", family)
    receiver = wire.get_receiver(family)

    def text(*_, **__):
        there = torch.arange(work.read[family]["context"].shape[1]) < work.read[family]["count"][:, None]
        return receiver.read(work.read[family]["context"], there, receiver.head_for(len(there)))

    with torch.no_grad():
        latents = step.losses(work, 4)[1]
        with monkeypatch.context() as patch:
            patch.setattr(wire, "prefix", text)
            same = step.losses(work, 4)[1]
    for key in (f"{family}/answer/hidden-states", f"{family}/answer/kl"):
        assert latents[key] > 0.01 and abs(float(same[key])) < 1e-4


def test_states_are_looked_at_behind_the_blocks_of_cross_attention(wire):
    receiver = wire.get_receiver("llama")
    torch.manual_seed(0)
    injection = CrossAttentionConfig(heads=2, head_dim=8, gate=0.5, at=(1.0,)).build(receiver.geometry)
    slots, there, ids = torch.randn(2, 3, 32), torch.ones(2, 3, dtype=torch.bool), torch.randint(5, 90, (2, 2, 4))
    prefix = injection(slots, there, torch.arange(3.0).expand(2, -1), torch.tensor([9, 9]), receiver)
    kept: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        states = row_states(receiver, watched(prefix, (0, 1), kept), ids)
        plain = row_states(receiver, prefix, ids)
        assert torch.equal(states, plain) and kept.keys() == {0, 1}
        # the last layer's states are what the final norm is given
        torch.testing.assert_close(receiver.decoder.norm(kept[1]).reshape(states.shape), states)
    assert torch.equal(rows_of(kept[1], ids.shape), kept[1].reshape(states.shape)[:, :, :-1])


def test_states_are_measured_in_units_of_the_teachers():
    teacher = torch.randn(1, 1, 3, 8, generator=torch.Generator().manual_seed(0))
    mse, cosine = HiddenStatesConfig().build(), HiddenStatesConfig(measure="cosine").build()
    torch.testing.assert_close(mse.inside([3 * teacher], [teacher]), torch.full((1, 1, 3), 4.0))
    torch.testing.assert_close(mse.inside([300 * teacher], [100 * teacher]), torch.full((1, 1, 3), 4.0))
    torch.testing.assert_close(cosine.inside([-3 * teacher], [teacher]), torch.full((1, 1, 3), 2.0))


def test_shares_of_the_depth_are_layers(wire):
    receiver = wire.get_receiver("llama")
    assert HiddenStatesConfig(at=(0.1, 0.5, 1.0)).build().layers(receiver) == (0, 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (FirstTokenConfig(most=0.5), "first-token.most"),
        (FirstTokensConfig(tokens=0), "first-tokens.tokens"),
        (FirstTokensConfig(tokens=4, grown=2), "first-tokens.grown"),
        (KLConfig(temperature=0), "kl.temperature"),
        (KLConfig(tokens=-1), "kl.tokens"),
        (KLConfig(taught=0), "kl needs a teacher"),
        (HiddenStatesConfig(taught=0), "hidden-states needs a teacher"),
        (HiddenStatesConfig(at=(1.5,)), "hidden-states.at"),
        (HiddenStatesConfig(measure="l1"), "mse or cosine"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong.build()


def test_label_smoothing_refuses_a_weight_of_1():
    from latentwire.objectives import Schedule

    with pytest.raises(UserError, match="from 0 to below 1"):
        LabelSmoothingConfig(weight=Schedule()).build()
