"""The mean of two wires, and what has none."""

from __future__ import annotations

import copy

import pytest
import torch

from latentwire.encoders.lm import LMEncoderConfig
from latentwire.link import LinkConfig
from latentwire.training import average
from latentwire.wire import Wire, WireConfig


def moved(wire: Wire, by: float) -> Wire:
    """A copy whose weights are changed a little, by luck."""
    other, luck = copy.deepcopy(wire), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight += by * weight.std(correction=0) * torch.randn(weight.shape, generator=luck)
    return other


@pytest.fixture
def saved(tiny_wire, tmp_path):
    def save(name: str, wire: Wire) -> str:
        wire.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return save


def test_the_mean_of_two_wires_is_a_wire(tiny_wire, saved, tmp_path):
    one, two = saved("one", tiny_wire), saved("two", moved(tiny_wire, 0.1))
    average.main([str(tmp_path / "mean"), one, two])
    a, b, mean = (Wire.from_pretrained(where).state_dict() for where in (one, two, tmp_path / "mean"))
    assert a.keys() == mean.keys()
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, (a[name] + b[name]) / 2, msg=name)
    assert any(not torch.equal(a[name], mean[name]) for name in mean)


def test_wires_that_never_were_one_are_refused(tiny_wire, saved, tmp_path):
    one, far = saved("one", tiny_wire), saved("far", moved(tiny_wire, 20.0))
    with pytest.raises(SystemExit, match="did not go on from the same wire"):
        average.main([str(tmp_path / "mean"), one, far])
    assert not (tmp_path / "mean").exists()


def test_other_settings_are_refused(tiny_wire, tiny_readers, saved, tmp_path):
    links = {name: LinkConfig(receiver=str(tiny_readers[name])) for name in ("llama", "qwen2")}
    encoder = LMEncoderConfig(d_z=16, ratios=(4, 8), window=64, init=str(tiny_readers["llama"]))
    other = Wire.create(WireConfig(encoder, links), ["Some text.", "Another text of more words."]).eval()
    with pytest.raises(SystemExit, match="other settings"):
        average.main([str(tmp_path / "mean"), saved("one", tiny_wire), saved("other", other)])


def test_one_wire_has_no_mean(tiny_wire, saved, tmp_path):
    with pytest.raises(SystemExit, match="at least two wires"):
        average.main([str(tmp_path / "mean"), saved("one", tiny_wire)])
