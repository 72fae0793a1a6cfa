"""Where the scale of soft tokens starts, and the ramp of their gain."""

from __future__ import annotations

import pytest
import torch

from conftest import FAMILIES, WORDS
from latentwire.errors import UserError
from latentwire.injections.soft_tokens import CALIBRATIONS, SoftTokensConfig
from latentwire.receivers.load import load_receiver

MASK, PLACE, NEXT = torch.ones(2, 6, dtype=torch.bool), torch.arange(6.0).expand(2, -1), torch.tensor([9, 9])


def made(receiver, **settings):
    torch.manual_seed(0)
    injection = SoftTokensConfig(multiple=1.0, **settings).build(receiver.geometry)
    injection.calibrate(receiver, [WORDS])
    return injection


def embeds(injection, receiver, monkeypatch, slots):
    """The vectors that the receiver is given."""
    receiver.head()
    read = []

    def keep(ids_BT, mask_BT, prefix, *, embeds_BTE, positions_BT):
        read.append(embeds_BTE)
        return prefix

    with monkeypatch.context() as patch:
        patch.setattr(receiver, "read", keep)
        injection(slots, MASK, PLACE, NEXT, receiver)
    return read[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_calibration_says_where_the_scale_starts(tiny_readers, family, monkeypatch):
    receiver = load_receiver(tiny_readers[family])
    # the words of the text are the last in these tables, and are made small: text and vocabulary differ
    table = receiver.model.get_input_embeddings().weight
    with torch.no_grad():
        table.mul_(torch.linspace(3, 0.2, len(table))[:, None])
        text = receiver.embed(torch.tensor(receiver.prompt.context_ids([WORDS])))
        words = receiver.embed(torch.arange(len(table))[None])
    expected = {
        "train_stats": text.square().mean().sqrt().item(),
        "embed_rms": words.square().mean().sqrt().item(),
        "fixed": 0.7,
        "none": 1.0,
    }
    assert set(expected) == set(CALIBRATIONS)
    assert expected["embed_rms"] > 1.1 * expected["train_stats"]
    slots = torch.randn(2, 6, receiver.geometry.width)
    plain = embeds(made(receiver, calibration="none"), receiver, monkeypatch, slots)
    for name, scale in expected.items():
        injection = made(receiver, calibration=name, rms=0.7)
        got = embeds(injection, receiver, monkeypatch, slots)
        torch.testing.assert_close(got, plain * scale)
        # nothing holds it there (defect 14)
        with torch.no_grad():
            injection.gain.mul_(50)
        torch.testing.assert_close(embeds(injection, receiver, monkeypatch, slots), plain * scale * 50)


def test_the_ramp_counts_the_steps_that_learn_and_no_others(tiny_readers, monkeypatch):
    receiver = load_receiver(tiny_readers["llama"])
    slots = torch.randn(2, 6, receiver.geometry.width)
    whole = embeds(made(receiver), receiver, monkeypatch, slots).detach()
    injection = made(receiver, ramp=4, ramp_from=0.2)

    def factor() -> float:
        return (embeds(injection, receiver, monkeypatch, slots) / whole).mean().item()

    assert [factor() for _ in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    injection.steps.zero_()
    assert factor() == pytest.approx(0.2)
    with torch.no_grad():
        assert [factor() for _ in range(2)] == pytest.approx([0.4, 0.4])
    injection.eval()
    assert [factor() for _ in range(2)] == pytest.approx([0.4, 0.4])
    injection.train().requires_grad_(False)
    assert [factor() for _ in range(2)] == pytest.approx([0.4, 0.4])


def test_the_ramp_is_kept_with_the_weights_and_costs_nothing_when_off(tiny_readers, monkeypatch):
    receiver = load_receiver(tiny_readers["llama"])
    assert "steps" not in made(receiver).state_dict()
    slots = torch.randn(2, 6, receiver.geometry.width)
    one, other = made(receiver, ramp=5), made(receiver, ramp=5)
    for _ in range(3):
        embeds(one, receiver, monkeypatch, slots)
    other.load_state_dict(one.state_dict())
    got = [embeds(injection.eval(), receiver, monkeypatch, slots) for injection in (one, other)]
    torch.testing.assert_close(*got)


@pytest.mark.parametrize(
    "wrong", [{"calibration": "clamp"}, {"rms": 0.0}, {"ramp": -1}, {"ramp": 3, "ramp_from": 0.0}], ids=str
)
def test_settings_that_cannot_be_are_refused(tiny_readers, wrong):
    receiver = load_receiver(tiny_readers["llama"])
    with pytest.raises(UserError, match=r"injection\."):
        SoftTokensConfig(**wrong).build(receiver.geometry)
