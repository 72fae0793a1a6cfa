"""Results of several processes as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentwire.errors import UserError
from latentwire.evaluation.merge import merge
from latentwire.evaluation.runner import PREDICTIONS, RESULTS


def part(folder: Path, receiver: str, ratio: int, encoder: str = "ab", seed: int = 0, device: str = "cpu") -> Path:
    folder.mkdir()
    rows = [
        {"receiver": receiver, "condition": "text", "ratio": None, "bits": None, "f1": 0.5},
        {"receiver": receiver, "condition": "latents", "ratio": ratio, "bits": 16, "f1": 0.1 * ratio},
    ]
    wire = {"encoder": encoder, "receivers": {receiver: "00"}, "config": {}}
    tree = {"wire": wire, "data": {"n": 2}, "mode": "context", "seed": seed, "rows": rows, "kinds": []}
    tree |= {"device": device, "versions": {"torch": "2.0"}}
    (folder / RESULTS).write_text(json.dumps(tree))
    (folder / PREDICTIONS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_rows_that_parts_share_stand_once(tmp_path):
    parts = [part(tmp_path / "a", "llama", 4), part(tmp_path / "b", "llama", 8), part(tmp_path / "c", "qwen2", 4)]
    whole = merge(tmp_path / "whole", parts)
    keys = [(row["receiver"], row["condition"], row["ratio"]) for row in whole["rows"]]
    expected = {("llama", "text", None), ("llama", "latents", 4), ("llama", "latents", 8)}
    assert set(keys) == expected | {("qwen2", "text", None), ("qwen2", "latents", 4)}
    assert len(keys) == len(set(keys))
    assert whole["wire"]["receivers"] == {"llama": "00", "qwen2": "00"}
    lines = (tmp_path / "whole" / PREDICTIONS).read_text().splitlines()
    assert len(lines) == len(set(lines)) == 5


@pytest.mark.parametrize("other", [{"encoder": "cd"}, {"seed": 1}])
def test_what_does_not_belong_together_is_refused(tmp_path, other):
    parts = [part(tmp_path / "a", "llama", 4), part(tmp_path / "b", "qwen2", 4, **other)]
    with pytest.raises(UserError, match="cannot be joined"):
        merge(tmp_path / "whole", parts)


def test_every_device_that_rows_were_measured_on_is_named(tmp_path):
    parts = [
        part(tmp_path / name, name, 4, device=device) for name, device in (("a", "GPU"), ("b", "cpu"), ("c", "GPU"))
    ]
    whole = merge(tmp_path / "whole", parts)
    assert whole["device"] == "GPU, cpu"
    assert whole["versions"] == {"torch": "2.0"}
