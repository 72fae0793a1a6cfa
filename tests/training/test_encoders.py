"""Encoders with something of their own in a training run: frozen parts, a fixed number of latents, private ones."""

from __future__ import annotations

import json
import math

import pytest
import torch

from latentwire.config import decode, load
from latentwire.encoders import EncoderConfig
from latentwire.errors import UserError
from latentwire.saved import WireConfig
from latentwire.training.config import TrainConfig
from latentwire.training.run import train
from latentwire.training.sources import read_text
from latentwire.wire import Wire

ENCODERS = {
    "sentence-tokens": {"init": "bert", "fixed": True, "width": 16, "heads": 2},
    "lm": {"init": "llama", "lora": 2, "fixed": True},
    "byte": {"receivers": ["llama", "gemma"], "shared": 2, "width": 16, "heads": 2, "layers": 1},
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_run_leaves_what_is_frozen_as_it_was(tiny_config, tiny_readers, long_bert, tmp_path, name):
    tree = {"type": name, "d_z": 16, "ratios": [4, 8], "window": 200, **ENCODERS[name]}
    # one that reads the corpus' passages in one piece
    places = {"llama": tiny_readers["llama"], "bert": long_bert}
    if "init" in tree:
        tree["init"] = str(places[tree["init"]])
    small = ["corpus.windows=12", "corpus.contexts=12", "corpus.made=0", "corpus.dev=2", "passages=2", "eval_every=2"]
    more = [*small, "steps=2", "warmup=1", "optimizer=muon", f"wire.encoder={json.dumps(tree)}"]
    wire = Wire.from_pretrained(train(tiny_config, more, out=tmp_path / "run"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) > 2 and all(math.isfinite(row["loss"]) for row in rows if "loss" in row)
    fresh = dict(decode(EncoderConfig, tree).build().named_parameters())
    frozen = {key: p for key, p in wire.encoder.named_parameters() if not p.requires_grad}
    assert (name == "byte") is not bool(frozen)
    assert all(torch.equal(p, fresh[key]) for key, p in frozen.items())
    packet = wire.encode(["Letters were sent from Oslo to Paris, and some came back."], ratio=4)[0]
    assert all(isinstance(wire.receiver(r).generate(packet, "From where?", 4), str) for r in wire.receivers)


def test_passages_are_cut_in_the_units_of_the_encoder_that_reads_them(tiny_config, tiny_readers, tmp_path):
    """Also where the encoder is inside another one, or in the wire that is trained on."""
    byte = {"type": "byte", "d_z": 16, "ratios": [4], "window": 96, "width": 16, "heads": 2, "layers": 1}
    inside = {"type": "refined", "d_z": 16, "ratios": [4], "window": 96, "inner": {"type": "byte"}}
    corpus = ["corpus.windows=8", "corpus.shortest=48", "corpus.longest=96"]

    def lengths(*more: str) -> list[int]:
        config = load(tiny_config, TrainConfig, [*corpus, *more])
        return [len(passage) for passage, _ in read_text(config, None)]

    llama = {"llama": {"receiver": str(tiny_readers["llama"])}}
    begun = Wire.create(decode(WireConfig, {"encoder": byte, "links": llama}), ["Some text to measure."], "cpu")
    begun.save_pretrained(tmp_path / "begun")
    for more in (
        f"wire.encoder={json.dumps(byte)}",
        f"wire.encoder={json.dumps(inside)}",
        f"start={tmp_path / 'begun'}",
    ):
        assert min(lengths(more)) >= 48 and max(lengths(more)) <= 110, more
    assert min(lengths()) >= 48 * 4


def test_a_start_that_holds_no_wire_is_named_before_text_is_cut(tiny_config, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no whole wire"):
        read_text(load(tiny_config, TrainConfig, [f"start={tmp_path}"]), None)
