"""The command that trains a sentence encoder, at tiny size: it learns, survives a kill, and its card tells no lies."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from latentwire.config import decode, load
from latentwire.encoders import EncoderConfig
from latentwire.sandbox import sentence
from latentwire.sandbox.sentence_text import BOS, EOS, Articles, SentenceConfig, is_held, tokenise

CONFIG = Path(__file__).parents[2] / "configs" / "sandbox" / "encoders" / "sentence.yaml"
SMALL = ("vocabulary=300", "width=32", "layers=1", "heads=2", "ff=48", "window=24", "shortest=8", "positions=40",
         "aside=4", "batch=16", "steps=60", "warmup=3", "rate=0.01", "log_every=20", "save_every=20",
         "device=cpu")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Eighty articles on eight things, whose first and second halves have no word in common; and one too short."""
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)
    (folder / "text").mkdir()
    words = [a + b for a in ("ba", "do", "ki", "lu", "me", "no") for b in ("pa", "ri", "so", "tu")]
    rng.shuffle(words)
    with (folder / "text" / "some.jsonl").open("w") as file:
        for number in range(80):
            about = 3 * (number % 8)
            halves = [words[about : about + 1], words[about + 1 : about + 3]]
            text = " ".join(" ".join(rng.choice(half) for _ in range(35)) for half in halves)
            file.write(json.dumps({"title": f"{number}", "text": text}) + "\n")
        file.write(json.dumps({"title": "Short", "text": "Nothing."}) + "\n")
    return folder


def command(data, out, *more) -> list[str]:
    return [str(CONFIG), *SMALL, f"out={out}", *more, "--data-dir", str(data)]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    sentence.main(command(data, out))
    return out / "sentence"


def test_it_learns_and_the_card_says_what_was_measured(data, trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [20, 40, 60] and rows[-1]["loss"] < rows[0]["loss"]
    facts = json.loads((trained / "checkpoint" / "measured.json").read_text())
    assert facts["accuracy"] > 3 * facts["chance"] > 0
    assert facts["steps"] == 60 and facts["short"] == 1 and facts["files"] == ["some.jsonl"]
    assert facts["learnt"] + facts["held"] == 80 and facts["pairs"] <= facts["held"]
    card = (trained / "checkpoint" / "README.md").read_text()
    assert f"**{facts['accuracy']:.1%}**" in card and f"{facts['learnt']} articles to learn from" in card
    assert (
        "60 steps of up to 16 pairs" in card
        and f"BPE of {facts['vocabulary']} tokens" in card
        and "`some.jsonl`" in card
        and "{" not in card.replace("{type", "")
    )


def test_an_untrained_one_finds_fewer(data, trained, tmp_path):
    sentence.main(command(data, tmp_path, "steps=1", "rate=0.0"))
    figures = [
        json.loads((path / "checkpoint" / "measured.json").read_text()) for path in (trained, tmp_path / "sentence")
    ]
    assert figures[0]["accuracy"] > figures[1]["accuracy"] + 0.1
    assert figures[0]["pairs"] == figures[1]["pairs"]


def test_killed_and_resumed_ends_with_the_same_weights(data, trained, tmp_path):
    script = (
        "import os, signal, sys\n"
        "from latentwire.sandbox import sentence\n"
        "save = sentence.Run.save\n"
        "def save_then_die(run):\n"
        "    save(run)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "sentence.Run.save = save_then_die\n"
        "sentence.main(sys.argv[1:])\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, *command(data, tmp_path)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "sentence" / "checkpoint").exists()
    sentence.main(command(data, tmp_path))
    one, two = (load_file(path / "checkpoint" / "model.safetensors") for path in (trained, tmp_path / "sentence"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert json.loads((tmp_path / "sentence" / "checkpoint" / "measured.json").read_text())["tokens"] > 0


def test_the_checkpoint_is_an_encoder_for_a_wire(trained):
    tree = {"type": "sentence-tokens", "init": str(trained / "checkpoint"), "d_z": 16, "window": 24, "width": 16}
    encoder: Any = decode(EncoderConfig, tree).build().eval()
    assert encoder.begin == (BOS,) and encoder.end == (EOS,) and encoder.sentences.room == 38
    assert encoder.encode(encoder.prepare(["bado kilu meno"]), 4).z_BMD.isfinite().all()


def test_windows_of_a_pair_are_of_one_article_and_never_overlap():
    length = np.array([16, 40, 300])
    start = np.cumsum(length) - length
    articles = Articles(np.arange(1000, 1356, dtype=np.uint16), start, length, np.zeros(3, bool), 0)
    config, rng = SentenceConfig(window=24, shortest=8), np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        ids, counts = articles.pairs(np.arange(3), config, rng)
        assert ids.shape == (2, 3, 26) and (ids[..., 0] == BOS).all()
        for article in range(3):
            windows = []
            for side in range(2):
                n = int(counts[side, article]) - 2
                row = ids[side, article]
                assert 8 <= n <= 24 and row[n + 1] == EOS and not row[n + 2 :].any()
                windows.append(row[1 : n + 1] - 1000 - start[article])
                assert (np.diff(windows[-1]) == 1).all() and windows[-1][0] >= 0 and windows[-1][-1] < length[article]
            assert windows[0][-1] < windows[1][0], "the windows overlap"
            seen.update((article, int(i)) for window in windows for i in window)
    assert len(seen) == 356, "every token is in some window"


def test_held_out_articles_have_no_part_in_training(data, trained, monkeypatch):
    config = load(CONFIG, SentenceConfig, [*SMALL, f"out={trained.parent}"])
    articles, _ = tokenise(config, data, trained)
    assert 4 < articles.held_A.sum() < 50
    drawn = []
    monkeypatch.setattr(Articles, "pairs", spy(drawn, Articles.pairs))
    run = sentence.Run(load(CONFIG, SentenceConfig, [*SMALL, "steps=3", f"out={trained.parent / 'again'}"]), data)
    run.train()
    learnt, measured = np.concatenate(drawn[:3]), np.concatenate(drawn[3:])
    assert not run.articles.held_A[learnt].any() and run.articles.held_A[measured].all()
    texts = [json.loads(line) for line in (data / "text" / "some.jsonl").read_text().splitlines()]
    held = [is_held(f"{row['title']}\n{row['text']}", 4) for row in texts[:-1]]
    assert articles.held_A.tolist() == held


def spy(drawn, plain):
    def pairs(self, article_B, config, rng):
        drawn.append(article_B)
        return plain(self, article_B, config, rng)

    return pairs


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["heads=3"], "width 32 is no multiple of 3 heads"),
        (["window=64"], "do not fit 40 positions"),
        (["shortest=25"], "at most the window"),
        (["batch=1"], "at least 2"),
        (["aside=100000"], "80 articles to learn from and 0 held out"),
        (["colour=red"], "colour"),
    ],
)
def test_what_cannot_work_is_said(data, tmp_path, more, message):
    with pytest.raises(SystemExit, match=message):
        sentence.main(command(data, tmp_path, *more))


def test_another_config_is_refused(data, trained):
    with pytest.raises(SystemExit, match="another config"):
        sentence.main(command(data, trained.parent, "rate=0.1"))
