"""Processes that split the encoder make the steps of processes that have it whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from latentwire.errors import UserError
from latentwire.training.loop import Loop
from latentwire.training.run import train
from training.test_together import simple_tree

pytestmark = pytest.mark.slow

SCRIPT = """
import os
import shutil
import signal
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from latentwire.training.loop import Loop
from latentwire.training.run import train
from latentwire.training.shard import local
from latentwire.training.step import Step
from latentwire.training.stopping import Stopped

config, simple, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
rank = int(os.environ["RANK"])
seen, shares, plain, losses = {}, {}, Loop.advance, Step.losses

def advance(loop):
    left = plain(loop)
    seen.setdefault(loop.out.name, []).append(left[1])
    if loop.out.name == "split":
        parts = [p for p in loop.run.wire.encoder.parameters()]
        moments = [m["exp_avg"] for p, m in loop.trainer.optimizer.state.items() if p in set(parts)]
        for name, tensors in (("weights", parts), ("moments", moments)):
            shares[name] = torch.tensor([sum(local(t).numel() for t in tensors), sum(t.numel() for t in tensors)])
    if "told" in os.environ and loop.progress.step == 2 and rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)  # one of them alone is told
    return left

def bad(step, work, *how):
    loss, metrics = losses(step, work, *how)
    step.bad = getattr(step, "bad", 0) + step.training
    if rank == 1 and step.training and step.bad == 2 and step.wire.encoder.config.lora:
        loss = loss * float("inf")
    return loss, metrics

Loop.advance, Step.losses = advance, bad

def run(path, name, *more):
    try:
        train(path, more, out=out / name)
    except Stopped as stop:
        sys.stdout.write(f"stopped at {stop.step} ")
    save_file({"losses": torch.stack(seen[name]), **shares}, out / f"{name}-{rank}.safetensors")
    torch.distributed.barrier()

def copied(name, other):
    # a run as it was behind step 3
    if rank == 0:
        shutil.copytree(out / name, out / other)
        shutil.rmtree(out / other / "checkpoints" / "step-0000006", ignore_errors=True)
    torch.distributed.barrier()

run(config, "plain", "save_every=3")
os.environ["told"] = "1"
run(config, "split", "shard=true")
del os.environ["told"]
for name, other in (("plain", "before"), ("plain", "later"), ("split", "alone")):
    copied(name, other)
run(config, "split", "shard=true")
run(config, "later", "save_every=3", "shard=true")
run(simple, "muon")
run(simple, "muon-split", "shard=true")
"""


@pytest.fixture(scope="module")
def runs(tiny_tree, tmp_path_factory) -> Path:
    """Folders and losses of pairs of runs by two processes: with the encoder whole, and with it split."""
    folder = tmp_path_factory.mktemp("shard")
    encoder = {**tiny_tree["wire"]["encoder"], "told": True}
    whole = {
        **tiny_tree,
        "wire": {"encoder": encoder, "links": {"llama": tiny_tree["wire"]["links"]["llama"]}},
        "corpus": {**tiny_tree["corpus"], "windows": 16, "made": 0},
        "objectives": {key: {"type": key} for key in ("continuation", "answer")},
        "steps": 6, "passages": 2, "accumulate": 2, "eval_every": 3, "save_every": 2, "diagnostics": {"every": 3},
    }  # fmt: skip
    # its first stage leaves the encoder alone, the second one has all of Muon, LoRA and layers that are made again
    simple = {
        **simple_tree(whole, folder),
        "wire": {**whole["wire"], "encoder": {**encoder, "lora": 3}},
        "stages": [
            {"until": 0.25, "questions": 1.0, "learn": ["links"], "name": "align"},
            {"until": 1.0, "questions": 1.0},
        ],
        "steps": 4, "accumulate": 1, "optimizer": "muon", "recompute": ["encoder"], "diagnostics": {},
    }  # fmt: skip
    for name, tree in (("whole", whole), ("simple", simple), ("script", None)):
        path = folder / (f"{name}.yaml" if tree else f"{name}.py")
        path.write_text(yaml.safe_dump(tree) if tree else SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    files = [folder / "script.py", folder / "whole.yaml", folder / "simple.yaml", folder]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False, timeout=300)
    # both processes write there; whichever failed first says why
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "[rank" in line)[-8000:]
    assert done.stdout.count("stopped at 3") == 2
    return folder


def kept(folder: Path, name: str) -> list[dict[str, torch.Tensor]]:
    return [load_file(folder / f"{name}-{rank}.safetensors") for rank in (0, 1)]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def near(one: Path, other: Path) -> None:
    """The weights of two wires are the same, but for sums in another order."""
    expected, got = (load_file(path / "wire" / "model.safetensors") for path in (one, other))
    assert expected.keys() == got.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], atol=2e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_a_process_has_half_of_the_encoder_and_of_its_moments(runs):
    for share in kept(runs, "split"):
        for name in ("weights", "moments"):
            mine, all_of_it = share[name].tolist()
            assert 0.45 < mine / all_of_it < 0.55


def test_a_split_encoder_learns_as_a_whole_one(runs):
    # stopped behind step 3 and gone on with
    for plain, split in zip(kept(runs, "plain"), kept(runs, "split"), strict=True):
        assert len(plain["losses"]) == 6
        torch.testing.assert_close(split["losses"], plain["losses"], atol=1e-4, rtol=1e-4)
    near(runs / "plain", runs / "split")
    for file in ("metrics.jsonl", "diagnostics.jsonl"):
        plain, split = (lines(runs / name / file) for name in ("plain", "split"))
        assert [row["step"] for row in plain] == [row["step"] for row in split]
        for one, other in zip(plain, split, strict=True):
            for key in {"loss", "gradient", "answer", "smoothed"} & one.keys():
                assert other[key] == pytest.approx(one[key], rel=1e-3)
            if "gradients" in one:
                features, split_features = one["gradients"]["features"], other["gradients"]["features"]
                assert split_features == pytest.approx(features, rel=2e-3) and features["encoder"] > 0
    assert (runs / "split" / "best" / "model.safetensors").is_file()


def test_a_split_run_goes_on_from_a_checkpoint_of_a_whole_one(runs):
    for plain, later in zip(kept(runs, "plain"), kept(runs, "later"), strict=True):
        torch.testing.assert_close(later["losses"], plain["losses"][3:], atol=1e-4, rtol=1e-4)
    near(runs / "plain", runs / "later")


def test_one_process_goes_on_from_what_two_have_split(runs, monkeypatch, caplog):
    losses, advance = [], Loop.advance

    def seen(loop: Loop):
        left = advance(loop)
        losses.append(left[1])
        return left

    monkeypatch.setattr(Loop, "advance", seen)
    train(runs / "whole.yaml", ["shard=true"], out=runs / "alone")
    assert "shard: there is one process, so the encoder stays whole" in caplog.text
    train(runs / "whole.yaml", ["save_every=3"], out=runs / "before")
    assert len(losses) == 6
    torch.testing.assert_close(torch.stack(losses[:3]), torch.stack(losses[3:]), atol=1e-4, rtol=1e-4)
    near(runs / "before", runs / "alone")


def test_matrices_are_made_orthogonal_whole_and_bad_steps_are_skipped(runs):
    for plain, split in zip(kept(runs, "muon"), kept(runs, "muon-split"), strict=True):
        assert torch.isinf(plain["losses"]).tolist() == torch.isinf(split["losses"]).tolist()
        good = torch.isfinite(plain["losses"])
        torch.testing.assert_close(split["losses"][good], plain["losses"][good], atol=1e-4, rtol=1e-4)
    near(runs / "muon", runs / "muon-split")
    for name in ("muon", "muon-split"):
        assert [row.get("skipped") for row in lines(runs / name / "metrics.jsonl")][:4] == [None, 1, 1, 1]
    first = load_file(runs / "muon-split" / "stages" / "align" / "wire" / "model.safetensors")
    last = load_file(runs / "muon-split" / "wire" / "model.safetensors")
    moved = {name for name in first if name.startswith("encoder.") and not torch.equal(first[name], last[name])}
    assert any(".up." in name for name in moved) and not any(".base." in name for name in moved)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("graphs=true", "graphs"),
        ("diagnostics.gradients=1", "diagnostics.gradients"),
        ("wire.links.llama.load.device_map=cuda:1", "device_map"),
        ("draws=[{ratio: 4, codes: 2}]", "draws of codes"),
    ],
)
def test_what_does_not_go_with_it_is_refused_before_anything_is_loaded(tiny_config, tmp_path, change, word):
    codes = ["wire.codes={stages: 2}"] if "codes" in change else []
    with pytest.raises(UserError, match=f"shard and .*{word}.* exclude each other"):
        train(tiny_config, ["shard=true", *codes, change], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_encoder_without_layers_of_an_lm_is_refused_by_name(tiny_config, tmp_path):
    encoder = "wire.encoder={type: byte, d_z: 16, ratios: [4, 8], window: 200, width: 16, layers: 1, heads: 2}"
    with pytest.raises(UserError, match="an encoder of type 'byte' has none; leave shard out"):
        train(tiny_config, ["shard=true", encoder], out=tmp_path / "run")
