"""A trained wire that is given further parts, and goes on."""

from __future__ import annotations

import pytest
import torch

from latentwire.config import load
from latentwire.errors import UserError
from latentwire.training.check import check
from latentwire.training.config import TrainConfig
from latentwire.training.grow import grown
from latentwire.training.run import train
from latentwire.wire import Wire

TEXT = "Letters were sent from Oslo to Paris, and some came back."
TOLD = ["encoder.told=true", "links.*.adapter.told=true"]
SMALL = [
    "corpus.windows=12",
    "corpus.contexts=12",
    "corpus.made=0",
    "passages=2",
    "eval_every=0",
    "steps=2",
    "warmup=1",
]


def test_a_wire_goes_on_as_it_was_with_parts_it_did_not_have(tiny_config, tmp_path):
    first = train(tiny_config, SMALL, out=tmp_path / "first")
    plain = Wire.from_pretrained(first)
    wire = grown(plain, TOLD)
    new = set(wire.state_dict()) - set(plain.state_dict())
    assert new == {f"encoder.tones.{ratio}" for ratio in wire.ratios} | {
        f"links.{name}.adapter.ratio.weight" for name in wire.receivers
    }
    for ratio in wire.ratios:
        packets = (
            plain.encode([TEXT], ratio),
            wire.encode([TEXT], ratio),
        )
        torch.testing.assert_close(*(packet[0].z_MD for packet in packets))
    second = train(tiny_config, [*SMALL, f"start={first}", f"grow={TOLD}"], out=tmp_path / "second")
    state = Wire.from_pretrained(second).state_dict()
    assert new <= set(state) and any(state[name].abs().max() > 0 for name in new)


@pytest.mark.parametrize("change", ["encoder.d_z=8", "encoder.pool=mean", "encoder.lexicons=[]", "encoder.tolled=true",
                                    "links.*.adapter.layers=0"])  # fmt: skip
def test_what_does_not_only_add_is_refused(tiny_config, tmp_path, change):
    wire = Wire.from_pretrained(train(tiny_config, SMALL, out=tmp_path / "run"))
    with pytest.raises(UserError, match=r"grow may only add|config for WireConfig"):
        grown(wire, [change])


def test_it_needs_a_wire_to_add_to(tiny_config):
    with pytest.raises(UserError, match="grow needs start"):
        check(load(tiny_config, TrainConfig, [f"grow={TOLD}"]))
