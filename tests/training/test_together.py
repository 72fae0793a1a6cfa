"""Two processes train one wire."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

SCRIPT = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from latentwire.training.loop import Loop
from latentwire.training.run import train

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
    save_file({**state, "losses": torch.stack(seen)}, out.parent / f"rank-{rank}.safetensors")

Loop.go, Loop.advance = go, advance
gist = "objectives.gist={type: gist-head}"
gated = "objectives.kl.weight={kind: gated, after: gist, over: 2}"
train(sys.argv[1], ["steps=4", "eval_every=2", "save_every=2", gist, gated], out=out)
"""


def test_processes_see_other_passages_and_end_with_the_same_weights(tiny_config, tmp_path):
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script), str(tiny_config), str(tmp_path / "run")],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (load_file(tmp_path / f"rank-{rank}.safetensors") for rank in (0, 1))
    losses = one.pop("losses"), two.pop("losses")
    assert not torch.equal(*losses), "both drew the same passages"
    assert one.keys() == two.keys() and one["gates.smoothed_G"] != 0, "gates must open for all at once"
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=0, msg=name)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # files are written by the first process alone
    assert [row["step"] for row in rows if row["source"] != "dev"] == [1, 2, 3, 4]
    assert (Path(tmp_path) / "run" / "wire" / "model.safetensors").is_file()
