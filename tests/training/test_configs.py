"""Every training config that comes along runs, in the form of ``latentwire train --smoke``."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from latentwire.commands.train import SMOKE
from latentwire.config import load, read_yaml
from latentwire.errors import UserError
from latentwire.experiments.cost import wire_of
from latentwire.training.config import TrainConfig
from latentwire.training.loop import Loop
from latentwire.training.run import check, train
from latentwire.wire import Wire

ROOT = Path(__file__).resolve().parents[2]
# readers, sentence encoders and askers are trained from configs of another kind; sweeps are not one run
OTHERS = ("readers", "encoders", "askers", "sweeps")
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name not in OTHERS)
HUB = {path for path in CONFIGS if path.parent == ROOT / "configs"}
"""Configs for models of the hub; those of the same name in ``configs/smoke`` take their path on small readers."""
SMOKE_8B = ROOT / "configs" / "smoke" / "llama8b_qwen7b_squad.yaml"
BEGUN, JOIN = (ROOT / "configs" / "sandbox" / name for name in ("wire.yaml", "join.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_can_be_read_and_makes_sense(path):
    check(load(path, TrainConfig))


def run(path, corpus, tiny_readers, out: Path, *more: str) -> Path:
    """A config's tiny run, on small readers."""
    whole = read_yaml(path)
    tree = whole.get("wire", {})
    small = [f"wire.links.{name}.receiver={tiny_readers[name]}" for name in tree.get("links", {})]
    if "init" in tree.get("encoder", {}):
        words = [str(tiny_readers[name.removeprefix("sandbox:")]) for name in tree["encoder"].get("lexicons", [])]
        small += [f"wire.encoder.init={tiny_readers[tree['encoder']['init'].removeprefix('sandbox:')]}"]
        small += [f"wire.encoder.lexicons={json.dumps(words)}", "wire.encoder.stretch=4"]
        small += [f"wire.encoder.{key}=1" for key in ("layers", "lexicon_layers") if key in tree["encoder"]]
    elif "encoder" in tree:  # one that reads bytes: a shorter text serves
        small += ["wire.encoder.window=256", "corpus.longest=256", "wire.encoder.layers=1"]
    # narrow: at full width most of a step's time is Muon's products of matrices
    small += ["wire.encoder.d_z=32"] if "d_z" in tree.get("encoder", {}) else []
    links = tree.get("links", {}).items()
    small += [f"wire.links.{name}.injection.width=32" for name, link in links if "width" in link.get("injection", {})]
    # parts no wider than the readers' embeddings
    grow = [re.sub(r", read: \d+", "", change) for change in whole.get("grow", [])]
    grow = [change.replace("type: product", "type: product, width: 8, read: 16") for change in grow]
    small += [f"grow={json.dumps(grow)}"] if grow else []
    # their tokenizers cut a text into about three times as many tokens
    stretch = 3.2 * whole["corpus"].get("stretch", 1.25)
    small += ["corpus.asked=96", f"corpus.stretch={stretch}", "corpus.shortest=16"]
    data = [f"corpus.text={corpus / 'text'}", f"corpus.questions={corpus / 'questions.jsonl'}"]
    if "cache" in whole["objectives"].get("kl", {}):
        data += [f"objectives.kl.cache={out.parent / 'teacher'}", f"corpus.cache={out.parent / 'cache'}"]
    return train(path, [*SMOKE.split(), *small, *data, *more], out=out)


@pytest.fixture(scope="module")
def begun(tmp_path_factory, corpus, tiny_readers) -> Path:
    """A wire of small readers for the configs that train on or join."""
    return run(BEGUN, corpus, tiny_readers, tmp_path_factory.mktemp("begun"))


@pytest.mark.parametrize("path", sorted(set(CONFIGS) - HUB - {BEGUN, JOIN, SMOKE_8B}), ids=lambda path: path.stem)
def test_it_runs(path, corpus, tmp_path, tiny_readers, begun):
    """On small readers; the one that others begin from has run by then, and the late joiner's needs more positions than
    these have: it runs with the README's commands."""
    more = [f"start={begun}"] if "start" in read_yaml(path) else []
    wire = Wire.from_pretrained(run(path, corpus, tiny_readers, tmp_path / "run", *more))
    packet = wire.encode(["Letters were sent from Oslo."], ratio=wire.ratios[0])[0]
    assert all(isinstance(wire.receiver(name).generate(packet, "From where?"), str) for name in wire.receivers)


@pytest.mark.parametrize("path", sorted({*HUB, *(ROOT / "configs" / "smoke").glob("*.yaml")}), ids=str)
def test_a_dry_run_needs_no_model(path, monkeypatch, capsys):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("something was asked of the network")

    monkeypatch.setattr(socket, "create_connection", never)
    monkeypatch.setattr(socket.socket, "connect", never)
    train(path, dry_run=True)
    shown = json.loads(capsys.readouterr().out)["config"]
    assert list(shown["wire"]["links"]) == ["llama", "qwen2"]
    assert [stage["name"] for stage in shown["stages"]] == ["align", "squad"]
    if path in HUB:
        assert all(link["load"]["dtype"] == "bfloat16" for link in shown["wire"]["links"].values())
        assert (path.parent / "smoke" / path.name).is_file()
        # what it would cost is not known where the models are not, and that is said
        with pytest.raises(UserError, match="is not on this machine"):
            wire_of(load(path, TrainConfig), {})


def test_the_path_of_the_large_pair_goes_on_where_it_was_stopped(corpus, tiny_readers, tmp_path, monkeypatch):
    more = ["steps=3", "eval_every=0", "save_every=1", "accumulate=2", "passages=2", "stages.1.score=0"]
    whole = load_file(run(SMOKE_8B, corpus, tiny_readers, tmp_path / "whole", *more) / "model.safetensors")
    advance, made = Loop.advance, []

    def stopped(loop: Loop):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(loop.progress.step)
        return advance(loop)

    monkeypatch.setattr(Loop, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(SMOKE_8B, corpus, tiny_readers, tmp_path / "broken", *more)
    monkeypatch.setattr(Loop, "advance", advance)
    again = load_file(run(SMOKE_8B, corpus, tiny_readers, tmp_path / "broken", *more) / "model.safetensors")
    assert made == [0, 1] and (tmp_path / "broken" / "stages" / "align" / "wire").is_dir()
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []


def test_a_ratio_the_encoder_was_not_made_for_is_refused():
    with pytest.raises(UserError, match="draws names ratio 5, the encoder is made for 4, 8, 16"):
        check(load(ROOT / "configs" / "sandbox" / "wire.yaml", TrainConfig, ["draws=[{ratio: 4}, {ratio: 5}]"]))


def test_what_a_method_says_of_its_own_options_is_told_as_it_is():
    with pytest.raises(UserError) as told:
        load(ROOT / "configs" / "sandbox" / "wire.yaml", TrainConfig, ["objectives.answer.weight.kind=gated"])
    assert str(told.value) == (
        "config for TrainConfig: `objectives.answer.weight`: a gated weight waits for an objective: "
        "give both kind: gated and after: (its name), or neither"
    )


def test_articles_for_made_questions_are_all_or_every_second():
    with pytest.raises(UserError, match=r"made_lines is one of all, odd, even, not 'third'"):
        check(load(ROOT / "configs" / "sandbox" / "wire.yaml", TrainConfig, ["corpus.made_lines=third"]))


def test_ratio_and_slots_of_steps_are_drawn_by_their_shares(tiny_config, tmp_path):
    slots = [f"wire.links.{name}.adapter.slots=[1, 2]" for name in ("llama", "gemma")]
    train(
        tiny_config,
        ["steps=12", "eval_every=0", *slots, "draws=[{ratio: 4, slots: 2, share: 3}, {ratio: 8}]"],
        out=tmp_path / "run",
    )
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    drawn = [row["draw"] for row in map(json.loads, lines) if row["source"] != "dev"]
    assert len(drawn) == 12 and set(drawn) == {"4x2", "8x"}
    assert drawn.count("4x2") > drawn.count("8x")


def test_a_trained_wire_is_trained_on_with_some_of_its_links(tiny_config, tmp_path):
    first = train(tiny_config, ["steps=2", "eval_every=0"], out=tmp_path / "first")
    before = Wire.from_pretrained(first)
    more = [f"start={first}", "links=[gemma]", "steps=2", "eval_every=0", "warmup=1"]
    after = Wire.from_pretrained(train(tiny_config, more, out=tmp_path / "more"))
    assert after.receivers == ["gemma"] and after.fingerprint != before.fingerprint
    with pytest.raises(UserError, match="links names 'gpt2'"):
        train(tiny_config, ["links=[gpt2]"], out=tmp_path / "other")


def test_steps_of_prompt_mode_learn_to_answer_from_latents_alone(tiny_config, tmp_path):
    draws = "draws=[{ratio: 4, mode: prompt, share: 3}, {ratio: 4}]"
    more = ["steps=6", "eval_every=6", "corpus.longest=240", "wire.encoder.window=240", draws]
    train(tiny_config, [*more, "corpus.prompts=30"], out=tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    asked = [row for row in rows if row.get("draw") == "4x-prompt"]
    assert asked and all(row["source"] == "questions" and row["llama/answer"] > 0 for row in asked)
    assert "llama/answer@4x-prompt" in rows[-1] and "llama/answer@4x" in rows[-1]
    with pytest.raises(UserError, match="needs questions to encode"):
        train(tiny_config, more, out=tmp_path / "none")
