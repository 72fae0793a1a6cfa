"""What objectives keep of their own: trained and kept in checkpoints, and no part of the wire."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from latentwire.config import load
from latentwire.errors import UserError
from latentwire.training import checkpoint
from latentwire.training.check import check
from latentwire.training.checkpoint import Progress
from latentwire.training.config import TrainConfig
from latentwire.training.loop import Loop
from latentwire.training.run import train
from training.conftest import tree_of, written

THRESHOLD = 0.013
"""The smoothed cosine of tiny random wires is small: what matters is that it is passed halfway."""
MORE = (
    "steps=6",
    "objectives.words={type: embedding-reconstruction}",
    "objectives.gist={type: gist-head, tokens: 4, width: 8}",
    f"objectives.kl.weight={{kind: gated, after: gist, threshold: {THRESHOLD}, over: 4}}",
    "objectives.warm={type: embedding-alignment, weight: {kind: linear, start_value: 1, value: 0, end: 0.5}}",
)


def rows(out: Path) -> list[dict]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["source"] != "dev"]


@pytest.fixture(scope="module")
def run(tiny_readers, corpus, tmp_path_factory) -> tuple[Path, Path]:
    """The config of a finished run, and where it went."""
    folder = tmp_path_factory.mktemp("own")
    config = written(tree_of(tiny_readers, corpus), folder)
    train(config, MORE, out=folder / "run")
    return config, folder / "run"


def test_heads_and_gates_are_in_the_checkpoint_and_not_in_the_wire(run):
    out = run[1]
    names = " ".join(load_file(out / "wire" / "model.safetensors"))
    assert "query_TW" not in names and "smoothed" not in names
    early, late = (load_file(path / "own.safetensors") for path in sorted((out / "checkpoints").glob("step-*")))
    assert {key.split(".")[1] for key in early if key.startswith("heads")} == {"llama", "gemma"}
    assert early.keys() == late.keys() and [key for key in early if torch.equal(early[key], late[key])] == []
    assert float(late["gates.smoothed_G"]) == pytest.approx(rows(out)[-1]["gate/kl"], abs=1e-5)


def test_a_run_taken_up_again_ends_as_the_unbroken_one(run, tmp_path):
    config, whole = run
    out = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(out / "checkpoints" / "step-0000006")
    train(config, MORE, out=out)
    for file in ("wire/model.safetensors", "checkpoints/step-0000006/own.safetensors"):
        expected, got = load_file(whole / file), load_file(out / file)
        assert all(torch.equal(expected[key], got[key]) for key in expected)
    assert [row["step"] for row in rows(out)] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rows(out)[-2:]] == [row["loss"] for row in rows(whole)[-2:]]


def test_a_checkpoint_without_what_objectives_keep_is_damaged_and_without_any_there_is_no_file(tmp_path, caplog):
    wire, own = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW([*wire.parameters(), *own.parameters()])
    plain = checkpoint.save(tmp_path / "plain", wire, optimizer.state_dict(), Progress(1), torch.nn.ModuleDict())
    assert {path.name for path in plain.iterdir()} == {"wire.safetensors", "optimizer.safetensors", "progress.json"}
    assert checkpoint.load(tmp_path / "plain", wire, optimizer, torch.nn.ModuleDict()) == Progress(1)
    checkpoint.save(tmp_path / "own", wire, optimizer.state_dict(), Progress(1), own)
    kept = own.weight.detach().clone()
    with torch.no_grad():
        own.weight.zero_()
    newer = checkpoint.save(tmp_path / "own", wire, optimizer.state_dict(), Progress(2), own)
    (newer / "own.safetensors").unlink()
    assert checkpoint.load(tmp_path / "own", wire, optimizer, own) == Progress(1)
    assert "damaged" in caplog.text and torch.equal(own.weight, kept)


def test_a_warm_up_is_gone_when_it_is_over_and_a_gate_counts_from_when_it_opens(run):
    found = rows(run[1])
    assert ["llama/warm" in row for row in found] == [True, True, True, False, False, False]
    assert all("llama/words/cosine" in row and "gemma/gist/cosine" in row for row in found)
    opened = [row["gate/kl"] >= THRESHOLD for row in found]
    assert set(opened[:-1]) == {True, False}, [row["gate/kl"] for row in found]
    # the loss of a step is the weighted sum of its parts; kl joins at the step behind the one that opened its gate
    for number, row in enumerate(found):
        kl = 1.0 if number and opened[number - 1] else 0.0
        warm = 1 - number / 3
        loss = 0.0
        for name in ("llama", "gemma"):
            for key in ("continuation", "recall", "answer"):
                if f"{name}/{key}" in row:
                    loss += row[f"{name}/{key}"] + kl * row[f"{name}/{key}/kl"]
            loss += row[f"{name}/words"] + row[f"{name}/gist"] + warm * row.get(f"{name}/warm", 0.0)
        assert row["loss"] == pytest.approx(loss / 2, abs=1e-3)


def test_heads_learn_at_the_rate_of_the_links(tiny_config, tmp_path, monkeypatch):
    groups = []
    monkeypatch.setattr(Loop, "go", lambda self, resume: groups.append((self.trainer.optimizer.param_groups, self.run)))
    train(tiny_config, [*MORE, "optimizer=muon", "rate=0.5", "encoder_rate=0.1"], out=tmp_path / "run")
    (found, run) = groups[0]
    heads = {id(p) for p in run.step.heads.parameters()}
    assert heads
    placed = [(group["peak"], group["muon"]) for group in found for p in group["params"] if id(p) in heads]
    assert len(placed) == len(heads) and set(placed) == {(0.5, False), (0.5, True)}


def test_what_makes_no_sense_is_refused_before_anything_is_loaded(tiny_config):
    with pytest.raises(UserError, match="gated on 'nothing'"):
        check(load(tiny_config, TrainConfig, ["objectives.kl.weight={kind: gated, after: nothing}"]))


def test_a_stage_lets_heads_learn_or_holds_them_still(run, tmp_path):
    config = run[0]
    stages = [
        {"name": "A", "until": 0.3, "learn": ["objectives.gist.gemma"]},
        {"name": "B", "until": 0.7, "learn": ["encoder", "links"]},
        {"until": 1.0, "learn": ["objectives"]},
    ]
    few = ["objectives.gist={type: gist-head, tokens: 4, width: 8}", "corpus.windows=24", "eval_every=0"]
    more = [*few, f"stages={json.dumps(stages)}", "steps=6", "save_every=1", "keep=9"]
    train(config, more, out=tmp_path / "run")
    kept = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    own = [load_file(path / "own.safetensors") for path in kept]
    wires = [load_file(path / "wire.safetensors") for path in kept]

    def moved(states, before, after):
        return {
            key.split(".")[1] for key, value in states[before].items() if not torch.equal(value, states[after][key])
        }

    # steps 0..1, then 2..4, then 5; a stage whose receivers teach nothing does not read with them
    assert moved(own, 0, 1) == {"gemma"} and not moved(wires, 0, 1)
    assert not moved(own, 2, 4) and {"llama", "gemma"} <= moved(wires, 2, 4)
    assert moved(own, 4, 5) == {"llama", "gemma"} and not moved(wires, 4, 5)
    assert {key.split("/")[0] for key in rows(tmp_path / "run")[0] if "/" in key} == {"gemma"}
    with pytest.raises(UserError, match=r"names 'heads'.*objectives\.gist"):
        train(config, [*more, 'stages=[{until: 1.0, learn: ["heads"]}]'], out=tmp_path / "wrong")


def test_of_sampled_receivers_the_one_that_reads_teaches_its_head_and_moves_the_gates(run, tmp_path):
    more = ["receivers=sampled", "save_every=1", "keep=9", "eval_every=0", "clip=1e-3", "optimizer=muon"]
    train(run[0], [*MORE, *more], out=tmp_path / "run")
    own = [load_file(path / "own.safetensors") for path in sorted((tmp_path / "run" / "checkpoints").glob("step-*"))]
    value, readers = 0.0, []
    for number, row in enumerate(rows(tmp_path / "run")):
        (name,) = {key.split("/")[0] for key in row if key.endswith("gist/cosine")}
        readers.append(name)
        value += (1 - 0.5 ** (1 / 4)) * (row[f"{name}/gist/cosine"] - value)
        assert row["gate/kl"] == pytest.approx(value, abs=2e-5)
        if number:
            before, after = own[number - 1], own[number]
            moved = {
                key.split(".")[1] for key in before if key.startswith("heads") and not before[key].equal(after[key])
            }
            assert moved == {name}
    assert set(readers) == {"llama", "gemma"}
