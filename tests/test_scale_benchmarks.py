"""``benchmarks/prefill.py`` and ``scale_step.py`` on tiny shapes: what they measure, and what does not fit."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latentwire.config import load
from latentwire.receivers.recorded import Recorded
from latentwire.training.check import check
from latentwire.training.config import TrainConfig
from receivers.recorder import Recorder

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch):
    """A benchmark as a module, and its command with arguments."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def of(name: str):
        module = importlib.import_module(name)

        def command(*arguments: object) -> None:
            monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
            module.main()

        return module, command

    return of


def test_prefill_from_text_and_from_latents(script, tmp_path, capsys, monkeypatch):
    prefill, run = script("prefill")
    plain, out = prefill.Point.from_latents, tmp_path / "found.json"

    def short(point, ratio: int):
        if point.source.shape == (2, 64) and ratio == 8:
            raise torch.cuda.OutOfMemoryError
        return plain(point, ratio)

    monkeypatch.setattr(prefill.Point, "from_latents", short)
    run("--shape", "tiny", "--receivers", "tiny-qwen", "--contexts", 64, 500, "--batches", 2, "--rounds", 1,
        "--tokens", 3, "--out", out)  # fmt: skip
    found = json.loads(out.read_text())
    assert found["device"] == "cpu" and found["random_weights"] and "torch" in found["versions"]
    fits = {(row["context"], row["ratio"]): row["fits"] for row in found["rows"]}
    assert fits == {
        (64, None): True,
        (64, 4): True,
        (64, 8): False,
        (500, None): False,
        (500, 4): False,
        (500, 8): False,
    }
    why = {row["why"] for row in found["rows"] if not row["fits"]}
    assert why == {"memory", "window of 512"}
    assert all(0 < row["seconds"]["first"] < row["seconds"]["last"] for row in found["rows"] if row["fits"])
    assert found["graphs"] is False and not any(row["recorded"] for row in found["rows"] if row["fits"])
    capsys.readouterr()
    run("--table", out)
    assert "| tiny-qwen | 2 | 64 | " in (told := capsys.readouterr().out) and "| memory |" in told


def test_prefill_says_which_rows_were_decoded_by_recordings(script, tmp_path, monkeypatch):
    prefill, run = script("prefill")
    out, seen = tmp_path / "found.json", []

    def record(receiver, on: bool) -> None:
        seen.append(Recorder())
        # room for one context, not for two
        receiver.recorded = Recorded(seen[-1], 2 * 2 * 2 * 8 * 256 * 4) if on else None

    monkeypatch.setattr(prefill.Receiver, "record", record)
    run("--shape", "tiny", "--receivers", "tiny-llama", "--contexts", 64, "--batches", 1, 2, "--ratios", 4,
        "--rounds", 2, "--tokens", 3, "--graphs", "--out", out)  # fmt: skip
    found = json.loads(out.read_text())
    assert found["graphs"] is True
    assert [(row["batch"], row["given"], row["recorded"]) for row in found["rows"]] == [
        (1, "text", True), (1, "latents", True), (2, "text", False), (2, "latents", False),
    ]  # fmt: skip
    # recorded in the first round, replayed in all three; what the link makes has room for both contexts
    assert [(len(each.pools), each.replays) for each in seen] == [(2, 9), (3, 12), (0, 0), (1, 3)]


@torch.no_grad()
def test_text_is_read_as_receivers_read_it(script):
    prefill, shapes = (script(name)[0] for name in ("prefill", "shapes"))
    for shape in ("tiny-llama", "tiny-qwen"):
        receiver = shapes.receiver_of(shape, torch.device("cpu"))
        ids = torch.randint(3, 1000, (2, 20), generator=torch.Generator().manual_seed(0))
        ours = receiver.read(ids, torch.ones_like(ids, dtype=torch.bool), receiver.head_for(2))
        theirs = prefill.read_text(receiver, ids)
        for (k, v), (k_plain, v_plain) in zip(ours.kv, theirs.kv, strict=True):
            torch.testing.assert_close((k, v), (k_plain, v_plain), atol=1e-5, rtol=1e-4)
        assert theirs.next_B.tolist() == ours.next_B.tolist() and receiver.model.config._attn_implementation != "sdpa"


def test_shapes_are_those_of_the_models(script):
    """Parameters by transformers' own modules, without memory for them."""
    shapes, _ = script("shapes")
    billions = {}
    for name in ("llama8b", "qwen7b", "llama1b", "qwen0.5b"):
        model = shapes.model_of(name, torch.device("meta"))
        billions[name] = round(sum(p.numel() for p in model.parameters()) / 1e9, 2)
    assert billions == {"llama8b": 8.03, "qwen7b": 7.62, "llama1b": 1.24, "qwen0.5b": 0.49}


def test_a_step_of_both_sides_and_what_it_counts(script, tmp_path):
    _, run = script("scale_step")
    out, receivers = tmp_path / "found.json", ["tiny-llama", "tiny-qwen"]
    run("--receivers", *receivers, "--encoder", "tiny-llama", "--passages", 2, "--steps", 1, "--recompute", "encoder",
        "receivers", "--head-tokens", 50, "--out", out)  # fmt: skip
    found = json.loads(out.read_text())
    assert found["latents"] == 64 and found["tokens"] == 2 * (256 + 2 * 40)
    assert all(side["step_seconds"] > 0 and side["parts"] == 1 for side in found["sides"].values())
    # by hand: forward and backward are 6 operations a weight and token where weights learn, 4 where they are frozen;
    # attention is not counted on a CPU
    E, hidden, layers, words = 32, 48, 2, 8192
    block = E * (E + 2 * E // 2 + E) + 3 * E * hidden
    links = found["learning"] - layers * block - words * E
    rows = 39 * words * E + 40 * layers * block
    by_hand = 2 * (6 * layers * block * 257 + 2 * 4 * rows + 6 * links * 64)
    assert found["flops"] == pytest.approx(by_hand, rel=0.15)


def test_the_plain_loop_is_done_in_parts_where_memory_is_short(script, monkeypatch):
    scale, _ = script("scale_step")
    tried: list[int] = []

    def scarce(loop, parts: int) -> None:
        tried.append(parts)
        if parts < 4:
            raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(scale, "plain", scarce)
    loop = type(
        "Loop", (), {"trainer": type("", (), {"optimizer": torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])})}
    )
    assert scale.plain_side(loop, 1, 8)["parts"] == 4 and tried == [1, 2, 4, 4, 4, 4]
    tried.clear()
    assert scale.plain_side(loop, 1, 2) == {"fits": False} and tried == [1, 2]


def test_what_the_page_types_makes_sense():
    """Configs and overrides of each training command in docs/scale.md and in the example for SLURM."""
    text = (ROOT / "docs" / "scale.md").read_text() + (ROOT / "examples" / "slurm" / "train.sbatch").read_text()
    commands = re.findall(r"(?:latentwire train|train\.sbatch) (configs/\S+\.yaml)([^\n`]*)", text)
    assert len(commands) > 8
    for path, rest in commands:
        overrides = [word for word in rest.split("#")[0].split() if re.fullmatch(r"[\w.]+=\S+", word)]
        check(load(ROOT / path, TrainConfig, overrides))
    words = re.findall(r"`([\w.]+=[^`\s]+)`", text)
    assert any(word.startswith("wire.encoder") for word in words)
    for word in words:
        check(
            load(ROOT / "configs" / "llama8b_qwen7b_squad.yaml", TrainConfig, [word.replace("kl.", "objectives.kl.")])
        )
    subprocess.run(["bash", "-n", str(ROOT / "examples" / "slurm" / "train.sbatch")], check=True)
