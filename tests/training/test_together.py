"""Two processes train one wire."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from latentwire.training.loop import Loop
from latentwire.training.run import train

SCRIPT = """
import os
import signal
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from latentwire.training.loop import Loop
from latentwire.training.run import train
from latentwire.training.stopping import Stopped

out, plain, seen = Path(sys.argv[2]), Loop.go, []
cut = Loop.advance

def advance(loop):
    left = cut(loop)
    seen.append(left[1])
    return left

def go(loop, resume):
    plain(loop, resume)
    rank = loop.together.rank
    kept = loop.run.wire.state_dict() | loop.run.step.own().state_dict()
    state = {name: tensor.contiguous().clone() for name, tensor in kept.items()}
    save_file({**state, "losses": torch.stack(seen)}, loop.out.with_name(f"{loop.out.name}-{rank}.safetensors"))
    seen.clear()

Loop.go, Loop.advance = go, advance
gist = "objectives.gist={type: gist-head}"
gated = "objectives.kl.weight={kind: gated, after: gist, over: 2}"
train(sys.argv[1], ["steps=4", "eval_every=2", "save_every=2", gist, gated], out=out)
train(sys.argv[3], ["passages=2"], out=out.with_name("half"))
train(sys.argv[3], ["passages=2", *sys.argv[4:]], out=out.with_name("half-coded"))

def told(loop):
    left = cut(loop)
    if loop.progress.step == 2 and loop.together.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)  # one of them alone is told
    return left

Loop.advance = told
try:
    train(sys.argv[3], ["passages=2", "steps=9"], out=out.with_name("told"))
except Stopped as stop:
    sys.stdout.write(f"stopped at {stop.step} {stop.code}\\n")  # in one piece, beside the other's
"""


def simple_tree(tree: dict, folder: Path) -> dict:
    """A config whose loss is a mean over as many targets of each passage: one question each, one answer for all."""
    lines = [
        {"id": str(n), "context": f"Letter {n} went to Oslo in {1800 + n}.", "question": "Where?", "answers": ["Oslo"]}
        for n in range(24)
    ]
    (folder / "oslo.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = {**tree["corpus"], "questions": str(folder / "oslo.jsonl"), "windows": 0, "made": 0, "dev": 0}
    own = {"objectives": {"answer": {"type": "answer"}}, "stages": [{"until": 1.0, "questions": 1.0}], "asks": 1}
    return {**tree, **own, "corpus": corpus, "steps": 3, "draws": [{"ratio": 4}], "eval_every": 0, "save_every": 0}


# without the distance between latents and what is read for them, a ratio of two sums that has no mean over processes
CODED = ["wire.codes={type: grid, stages: 2, hidden: 16, commit: 0}", "draws=[{ratio: 4, codes: 2}]"]


@pytest.mark.slow
def test_processes_see_other_passages_and_make_the_step_of_one_with_twice_as_many(
    tiny_tree, tiny_config, tmp_path, monkeypatch
):
    simple = tmp_path / "simple.yaml"
    simple.write_text(yaml.safe_dump(simple_tree(tiny_tree, tmp_path)))
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script), str(tiny_config), str(tmp_path / "run"), str(simple), *CODED],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    # both left behind the same step, the first one at which both knew
    assert done.stdout.count("stopped at 3 143") == 2
    one, two = (load_file(tmp_path / f"run-{rank}.safetensors") for rank in (0, 1))
    losses = one.pop("losses"), two.pop("losses")
    assert not torch.equal(*losses), "both drew the same passages"
    assert one.keys() == two.keys() and one["gates.smoothed_G"] != 0, "gates must open for all at once"
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=0, msg=name)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # files are written by the first process alone
    assert [row["step"] for row in rows if row["source"] != "dev"] == [1, 2, 3, 4]
    assert (Path(tmp_path) / "run" / "wire" / "model.safetensors").is_file()
    # one process with the passages of both: the mean of their losses, at the first step and behind two updates
    losses, advance = [], Loop.advance

    def seen(loop: Loop):
        left = advance(loop)
        losses.append(left[1])
        return left

    monkeypatch.setattr(Loop, "advance", seen)
    for name, more in (("half", []), ("half-coded", CODED)):
        losses.clear()
        train(simple, ["passages=4", *more], out=tmp_path / f"whole-{name}")
        halves = [load_file(tmp_path / f"{name}-{rank}.safetensors")["losses"] for rank in (0, 1)]
        assert not torch.equal(*halves)
        torch.testing.assert_close(torch.stack(halves).mean(0), torch.stack(losses), atol=1e-4, rtol=1e-4)
    # what two processes have left, one goes on with
    losses.clear()
    train(simple, ["passages=2", "steps=9"], out=tmp_path / "told")
    assert len(losses) == 6 and (tmp_path / "told" / "wire" / "model.safetensors").is_file()
