"""Sweeps on tiny readers: what a run leaves, what is not done twice, what goes on, what a failed run does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from experiments.conftest import SHORT, history
from latentwire import cli
from latentwire.commands.train import SMOKE
from latentwire.config import read_yaml
from latentwire.experiments.processes import claimed
from latentwire.experiments.sweep import Sweep, sweep
from latentwire.training.loop import Loop
from latentwire.training.run import train

ROOT = Path(__file__).resolve().parents[2]
EACH = {"each": {"rate": [0.05]}, "baseline": True}


def test_a_sweep_trains_asks_and_judges_and_does_nothing_twice(swept, here, tmp_path, capsys, monkeypatch):
    path, out = swept(**EACH), tmp_path / "out"
    assert cli.main(["sweep", str(path), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    results, lines = json.loads((out / "results.json").read_text()), history(out)
    assert [line["overrides"] for line in lines] == [{}, {"rate": 0.05}]
    assert {line["hash"] for line in lines} == {folder.name for folder in here}
    for line in lines:
        (row,) = line["rows"]
        assert (row["receiver"], row["condition"], row["ratio"], row["n"]) == ("llama", "latents", 8, 3)
        assert line["score"]["value"] == row["f1"] and line["score"]["interval"] == row["f1_ci"]
        assert line["steps"] == 2 and line["seconds"]["train"] > 0 and line["versions"]["torch"]
        assert line["parameters"]["encoder"] > 0 and line["device"] == "cpu"
        assert (
            not (out / line["hash"] / "run" / "checkpoints").exists() and (out / line["hash"] / "run" / "wire").is_dir()
        )
    assert results["baseline"] == lines[0]["hash"] and not results["failed"]
    words = {run["hash"]: run["verdict"] for run in results["runs"]}
    assert words[lines[0]["hash"]] is None and words[lines[1]["hash"]] in (
        "improved",
        "stable",
        "degraded",
        "collapsed",
    )
    assert "verdict" in printed.out and "rate=0.05" in printed.out and "2/2" in printed.err
    # finished runs are skipped; another evaluation asks the same wires
    assert cli.main(["sweep", str(path), "--out", str(out)]) == 0
    assert len(here) == 2 and len(history(out)) == 2
    monkeypatch.setattr("latentwire.experiments.trial.train", lambda *_, **__: pytest.fail("a run was trained twice"))
    assert cli.main(["sweep", str(path), "evaluate.n=2", "--out", str(out)]) == 0
    assert [line["rows"][0]["n"] for line in history(out)] == [3, 3, 2, 2]


def test_a_killed_run_goes_on_from_its_checkpoint(swept, here, tmp_path, capsys, monkeypatch):
    path, out = swept(grid={"rate": [0.05]}), tmp_path / "out"
    typed = ["steps=4", "save_every=2", "evaluate.n=1"]
    advance, steps = Loop.advance, []

    def killed(loop):
        steps.append(loop.config.rate)
        if steps.count(0.05) == 3:
            raise OSError("killed")
        return advance(loop)

    monkeypatch.setattr(Loop, "advance", killed)
    assert cli.main(["sweep", str(path), *typed, "--out", str(out)]) == 1
    assert "failed: " in capsys.readouterr().out
    assert not (out / "metrics_history.jsonl").exists()
    assert cli.main(["sweep", str(path), *typed, "--out", str(out)]) == 0
    assert steps.count(0.05) == 3 + 2, "two steps were kept, two were left"
    assert [line["steps"] for line in history(out)] == [4]


def test_a_run_that_another_process_has_is_left_to_it_and_one_that_fails_does_not_stop_the_others(
    swept, tmp_path, capsys, monkeypatch
):
    begun = []
    monkeypatch.setattr(Sweep, "process", lambda self, run, *_: begun.append(run.name) or "it broke")
    path = swept(grid={"rate": [0.01, 0.02, 0.03]})
    ready = sweep(path, (), tmp_path / "out")
    names = [run.name for run in ready.runs]
    with claimed(ready.out / names[1]) as claim:
        assert claim is not None
        assert cli.main(["sweep", str(path), "--out", str(ready.out)]) == 1
    results = json.loads((ready.out / "results.json").read_text())
    assert results["elsewhere"] == [names[1]] and begun == [names[0], names[2]] and not results["runs"]
    assert results["failed"] == {names[0]: "it broke", names[2]: "it broke"}
    out = capsys.readouterr().out
    assert f"{names[2]} failed: it broke" in out and f"{names[1]} is being run by another process" in out


def test_data_that_is_not_there_is_said_once_before_any_run(swept, tiny_tree, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LATENTWIRE_DATA", raising=False)
    no_data = SHORT | {"corpus.text": "", "corpus.questions": ""}
    assert cli.main(["sweep", str(swept(grid={"rate": [0.1]}, overrides=no_data)), "--out", str(tmp_path / "out")]) == 2
    assert "give --data-dir DIR" in capsys.readouterr().err and not (tmp_path / "out").exists()
    path = swept(grid={"rate": [0.1]}, evaluate={"questions": "nowhere.jsonl"})
    assert cli.main(["sweep", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "there is no file nowhere.jsonl" in capsys.readouterr().err


def test_a_run_that_the_watch_stops_is_collapsed(swept, here, tmp_path, capsys):
    watch = {"share": 0.0, "patience": 1}
    each = {"on_collapse": ["stop"]}
    path = swept(each=each, baseline=True)
    typed = [f"watch={json.dumps(watch)}", "stages=[{until: 1.0, questions: 1.0}]", "log_every=1", "evaluate.n=2"]
    assert cli.main(["sweep", str(path), *typed, "--out", str(tmp_path / "out")]) == 0
    base, stopped = history(tmp_path / "out")
    assert base["stopped"] is None and base["ended"]["llama"] == ["dominating token"]
    assert stopped["stopped"].startswith("step 1: ") and not stopped["rows"] and stopped["score"]["value"] is None
    found = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    assert [run["verdict"] for run in found] == [None, "collapsed"]
    assert "stopped" in capsys.readouterr().out


def test_a_dry_run_shows_every_config_and_what_it_will_cost(swept, tmp_path, capsys):
    path = swept(grid={"rate": [0.01, 0.05], "steps": [3, 4]}, overrides={"device": "cpu"})
    assert cli.main(["sweep", str(path), "--dry-run", "--out", str(tmp_path / "out"), "--workers", "2"]) == 0
    out = capsys.readouterr().out
    documents = list(yaml.safe_load_all(out[: out.rindex("4 runs")]))
    assert [(tree["rate"], tree["steps"]) for tree in documents] == [(0.01, 3), (0.01, 4), (0.05, 3), (0.05, 4)]
    assert "4 runs, 2 at a time: 14 steps, " in out and "FLOPs" in out and not (tmp_path / "out").exists()
    assert cli.main(["sweep", str(path), "--dry-run", "wire.links.gemma.receiver=nobody/nothing"]) == 0
    assert "FLOPs not counted: nobody/nothing is not on this machine" in capsys.readouterr().out
    minutes = swept(grid={"rate": [0.01, 0.05]}, overrides={"minutes": 3, "steps": 0})
    assert cli.main(["sweep", str(minutes), "--dry-run", "--workers", "2"]) == 0
    assert "2 runs, 2 at a time: 6 minutes of training, 3 on the clock" in capsys.readouterr().out


def test_the_weight_sweep_that_comes_along_runs(here, tiny_readers, corpus, tiny_tree, tmp_path, capsys):
    """Its smoke form, on small readers: from a wire made here, in place of the one that comes along."""
    tree = read_yaml(ROOT / "configs" / "sandbox" / "wire.yaml")
    small = [f"wire.links.{name}.receiver={tiny_readers[name]}" for name in tree["wire"]["links"]]
    small += [f"wire.encoder.init={tiny_readers['llama']}", f"wire.encoder.lexicons=[{tiny_readers['qwen2']}]"]
    small += ["wire.encoder.stretch=4", "corpus.asked=96", "corpus.stretch=4", "corpus.shortest=16"]
    small += [f"corpus.text={corpus / 'text'}", f"corpus.questions={corpus / 'questions.jsonl'}", "device=cpu"]
    thin = ["wire.encoder.d_z=16", "wire.links.llama.adapter.head_dim=8", "wire.links.llama.injection.width=16"]
    once = [*SMOKE.split(), *small, *thin, "links=[llama]", "steps=1", "eval_every=0", "save_every=0"]
    begun = train(ROOT / "configs" / "sandbox" / "wire.yaml", once, out=tmp_path / "begun")
    path, out = ROOT / "configs" / "sweeps" / "weights.yaml", tmp_path / "out"
    ready = sweep(path, [f"start={begun}", *small], out, smoke=SMOKE.split(), n=2)
    assert {key for run in ready.runs for key in run.overrides} == {
        f"objectives.{name}.weight.value" for name in ("kl", "recall")
    }
    ready.runs = ready.runs[:2]  # they all take the same time
    found = ready.go()["runs"]
    assert len(found) == len(here) == 2 and sorted(run["verdict"] is None for run in found) == [False, True]
    assert all(run["steps"] == 2 and run["rows"][0]["n"] == 2 for run in found)
    capsys.readouterr()


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_that_comes_along_can_be_read(path):
    assert sweep(path).resolved()


def test_a_process_of_its_own_trains_and_asks(swept, tmp_path, capsys):
    path = swept(grid={"seed": [0]})
    assert cli.main(["sweep", str(path), "--smoke", "--out", str(tmp_path / "out")]) == 0
    (line,) = history(tmp_path / "out")
    assert line["steps"] == 2 and line["rows"][0]["n"] == 3
    log = (tmp_path / "out" / line["hash"] / "log.txt").read_text()
    assert "step 2/2 " in log
    capsys.readouterr()
