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


def test_full_text_and_no_context_come_from_whatever_was_run_beside(tmp_path):
    def run(name: str, slots, rows: dict[str, float]) -> Path:
        folder = part(tmp_path / name, "llama", 4)
        tree = json.loads((folder / RESULTS).read_text())
        named = [
            {"receiver": "llama", "condition": c, "ratio": None if c in ("text", "none") else 4, "bits": None, "f1": f1}
            for c, f1 in rows.items()
        ]
        (folder / RESULTS).write_text(json.dumps(tree | {"slots": slots, "rows": named}))
        (folder / PREDICTIONS).write_text("".join(json.dumps(row | {"id": "1"}) + "\n" for row in named))
        return folder

    half = run("half", "half", {"latents": 0.4})
    one = run("one", None, {"text": 0.5, "none": 0.1, "latents": 0.3})
    whole = merge(tmp_path / "whole", [half, one])
    assert whole["slots"] == "half"
    assert {row["condition"]: row["f1"] for row in whole["rows"]} == {"latents": 0.4, "text": 0.5, "none": 0.1}
    assert next(row["retention"] for row in whole["rows"] if row["condition"] == "latents") == 0.75
    said = [json.loads(line) for line in (tmp_path / "whole" / PREDICTIONS).read_text().splitlines()]
    assert sorted((row["condition"], row["f1"]) for row in said) == [("latents", 0.4), ("none", 0.1), ("text", 0.5)]


def test_of_another_gain_only_text_and_none_are_taken(tmp_path):
    one, other = part(tmp_path / "a", "llama", 4), part(tmp_path / "b", "qwen2", 4)
    tree = json.loads((other / RESULTS).read_text())
    (other / RESULTS).write_text(json.dumps(tree | {"gain": 2.0}))
    names = [(row["receiver"], row["condition"]) for row in merge(tmp_path / "whole", [one, other])["rows"]]
    assert names == [("llama", "text"), ("llama", "latents"), ("qwen2", "text")]
    # results from before there was a gain are of gain 1
    (other / RESULTS).write_text(json.dumps(tree | {"gain": 1.0}))
    assert len(merge(tmp_path / "whole", [one, other])["rows"]) == 4


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


def of_text(folder: Path, rows: list[dict], model: str = "00") -> Path:
    """Rows of text alone, measured beside another encoder."""
    part(folder, "llama", 4, encoder="other")
    tree = json.loads((folder / RESULTS).read_text())
    tree["wire"]["receivers"] = {"llama": model}
    rows = [{"receiver": "llama", "bits": None, **row} for row in rows]
    (folder / RESULTS).write_text(json.dumps(tree | {"rows": rows}))
    (folder / PREDICTIONS).write_text("".join(json.dumps(row | {"id": "1"}) + "\n" for row in rows))
    return folder


def placed(folder: Path) -> Path:
    """Latents at 4x that take 48 positions."""
    part(folder, "llama", 4)
    tree = json.loads((folder / RESULTS).read_text())
    tree["rows"] = [row | {"kv_positions": 48.0} for row in tree["rows"] if row["condition"] == "latents"]
    (folder / RESULTS).write_text(json.dumps(tree))
    return folder


CUT = {"condition": "budget-question", "ratio": 4, "f1": 0.2, "kv_positions": 48.0}
WHOLE = {"condition": "text", "ratio": None, "f1": 0.5, "kv_positions": 190.0}
NONE = {"condition": "none", "ratio": None, "f1": 0.1, "kv_positions": 0.0}


def test_text_alone_may_have_been_measured_beside_another_encoder(tmp_path):
    parts = [placed(tmp_path / "a"), of_text(tmp_path / "b", [WHOLE, NONE, CUT])]
    whole = merge(tmp_path / "whole", parts)
    assert whole["wire"]["encoder"] == "ab"
    found = {row["condition"]: row["f1"] for row in whole["rows"]}
    assert found == {"latents": 0.4, "text": 0.5, "none": 0.1, "budget-question": 0.2}
    assert next(row["retention"] for row in whole["rows"] if row["condition"] == "latents") == 0.75


@pytest.mark.parametrize(
    ("rows", "model", "told"),
    [
        ([WHOLE, {**CUT, "condition": "latents"}], "00", "has latents"),
        ([WHOLE, {**CUT, "condition": "zero"}], "00", "has latents"),
        ([WHOLE], "11", "its llama is another model"),
        ([{**CUT, "kv_positions": 47.0}], "00", "other positions at 4x"),
        ([{**CUT, "ratio": 8}], "00", "other positions at 8x"),
    ],
)
def test_of_another_encoder_nothing_else_is_taken(rows, model, told, tmp_path):
    parts = [placed(tmp_path / "a"), of_text(tmp_path / "b", rows, model)]
    with pytest.raises(UserError, match=told):
        merge(tmp_path / "whole", parts)
