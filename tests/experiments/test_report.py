"""The page of real runs: its numbers are those of the files, nothing in it is live, and what is absent is not there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.conftest import EXAMPLES, HOSTILE
from latentwire import cli
from latentwire.evaluation.table import share
from latentwire.experiments.report import compared, losses_aside, render, report
from latentwire.experiments.runs import Evaluation, Training, read_runs

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("sandbox-full", "sandbox-drawn", "reader-llama")
"""Whole results, such without most figures, and such without receivers."""


@pytest.fixture
def html(page) -> str:
    return page.read_text(encoding="utf-8")


def plain(text: str) -> str:
    """With single spaces only: what a random model says has every kind of them."""
    return " ".join(text.split())


def equal_the_file(rows, tables):
    """Every row that applies is in its receiver's table, in order, and each figure is the file's."""
    applies = [row for row in rows if not row.get("na")]
    shown = [(name, condition, cells) for name, found in tables.items() for condition, cells in found]
    assert [(name, condition) for name, condition, _ in shown] == [(r["receiver"], r["condition"]) for r in applies]
    for row, (_, _, cells) in zip(applies, shown, strict=True):
        assert {key: json.loads(value) for key, (value, _) in cells.items()} == {
            key: row[key] for key in cells
        }  # what is shown
        left_out = {key for key, value in row.items() if value is not None} - set(cells)
        assert left_out <= {"receiver", "condition", "mode", "seconds", "na", "cut"}
        assert cells["f1"][1] == share(row["f1"])
        if row.get("f1_ci"):
            assert cells["f1_ci"][1] == "–".join(share(end) for end in row["f1_ci"])


def test_numbers_equal_the_results_file(html, evaluated, parsed):
    results = json.loads((evaluated / "results.json").read_text())
    tables = parsed(html.split('id="run-2"')[0]).tables
    assert set(tables) == {"llama", "qwen2"}
    equal_the_file(results["rows"], tables)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_results_make_a_page(name, parsed):
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    (run,) = read_runs([path])
    assert isinstance(run, Evaluation)
    html = render([run])
    rows = [{"receiver": name} | row for row in json.loads(path.read_text())["rows"]]
    equal_the_file(sorted(rows, key=lambda row: run.receivers.index(row["receiver"])), parsed(html).tables)
    assert ">Examples<" not in html


def test_retention_and_the_text_are_told_first(tmp_path, parsed):
    scores = {"text": (0.6, 1.0), "none": (0.1, 0.0), "latents": (0.5, 0.8)}
    rows = [
        {"receiver": "llama", "condition": name, "ratio": 4 if name == "latents" else None, "bits": None, "f1": f1,
         "f1_ci": [f1 - 0.05, f1 + 0.05], "retention": kept, "n": 10}
        for name, (f1, kept) in scores.items()
    ]  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps({"rows": rows}))
    words = plain(" ".join(parsed(render(read_runs([tmp_path]))).texts))
    assert "4× latents 80 % F1 .500 , .450–.550 kept of what the text gives (F1 .600" in words


def test_what_a_run_says_is_escaped(html, evaluated, parsed, tmp_path):
    assert HOSTILE not in html and "<script" not in html
    texts = "".join(parsed(html).texts)
    assert f"Who {HOSTILE}?" in texts and f"1,204 {HOSTILE}" in texts and "inhabitants & a pole" in texts
    # everything else that a file may bring
    results = json.loads((evaluated / "results.json").read_text())
    results |= {"device": HOSTILE, "versions": {HOSTILE: "1"}}
    for row in results["rows"]:
        row["receiver"] += HOSTILE
        row["condition"] = row["condition"] if row["condition"] in ("text", "none", "latents") else HOSTILE
        row["na"] = row["na"] and HOSTILE
    results["kinds"] = [row | {"kind": HOSTILE} for row in results["kinds"]]
    event = {"step": 2, "source": "event", "event": HOSTILE, "words": HOSTILE, "halved": {HOSTILE: 0.5}}
    losses = [{"step": step, "source": "text", "loss": 1.0, f"{HOSTILE}/answer": 2.0} for step in (1, 2, 3)]
    first = {"rows": 4, "at1": 0.5, "predicted": [[7, 4, HOSTILE]]}
    looks = [{"step": 2, "receivers": {HOSTILE: {"first": first, "slot_rms": 1.0}}}]
    runs = [Evaluation(HOSTILE, results), Training(f"{HOSTILE}2", [*losses, event], looks, f"a: {HOSTILE}\n")]
    hostile = render(runs)
    assert "<script" not in hostile
    assert "".join(parsed(hostile).texts).count(HOSTILE) > 40


def test_the_page_is_alone_and_says_so(html, parsed):
    found = parsed(html)
    policy = next(given["content"] for tag, given in found.tags if given.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "script" not in policy
    for tag, given in found.tags:
        assert tag not in ("script", "img", "iframe", "object", "base")
        assert not any(name.startswith("on") for name in given), given
        for name in ("href", "src", "xlink:href"):
            assert (given.get(name) or "#").startswith(("#", "data:")), given
    assert not re.search(r"url\((?!#)|@import", html)
    assert len(found.ids) == len(set(found.ids)), "two elements share a name"
    targets = {given["href"][1:] for tag, given in found.tags if tag == "a"}
    assert targets <= set(found.ids)


def test_figures_have_the_colours_of_the_page(html):
    figures = re.findall(r"<svg viewBox.*?</svg>", html, flags=re.DOTALL)
    assert len(figures) > 10
    for svg in figures:
        assert not re.search(r"#[0-9a-f]{6}\b", svg) and "<style" not in svg and " width=" not in svg.split(">")[0]
        assert 'role="img"' in svg and re.search(r'aria-label="[^"]+"', svg)
    used = set(re.findall(r"var\((--\w+)\)", html))
    assert used >= {"--s1", "--line"}
    light, dark = html.split("@media (prefers-color-scheme: dark)", 1)
    for name in used:
        assert f"{name}:" in light and f"{name}:" in dark.split("}")[0], f"{name} is no colour of both schemes"


def test_what_a_training_leaves_is_on_the_page(html, trained, parsed):
    part = parsed(html.split('id="run-2"')[1].split('id="run-3"')[0])
    texts = " ".join(part.texts)
    events = [json.loads(line) for line in (trained / "metrics.jsonl").open() if '"event"' in line]
    assert events and all(event["words"] in texts for event in events)
    for title in ("Loss", "llama: losses", "gemma: losses aside", "First-token accuracy", "Latent norms", "Gradients"):
        assert title in part.texts
    last = [json.loads(line) for line in (trained / "metrics.jsonl").open() if '"loss": ' in line]
    last = [row for row in last if row["source"] in ("text", "questions")][-1]
    numbers = [json.loads(given["value"] or "") for tag, given in part.tags if tag == "data"]
    assert numbers[:3] == [last["step"], last["loss"], last["seconds"]] and last["step"] == 6
    assert (trained / "config.yaml").read_text().strip() in "".join(part.texts)
    begun = json.loads((trained / "environment.jsonl").read_text().splitlines()[0])
    assert {begun["time"], begun["device"], begun["versions"]["torch"]} <= set(part.texts)


def test_examples_have_every_conditions_answer(html, evaluated, parsed):
    said = [json.loads(line) for line in (evaluated / "predictions.jsonl").open()]
    for example in EXAMPLES:
        part = html.split(f'data-id="{example.id}"')[1].split("</details>")[0]
        texts = [text.strip() for text in parsed(f"<details>{part}").texts]
        own = [line for line in said if line["id"] == example.id]
        assert len(re.findall(r'class="score', part)) == len(own)
        assert all(plain(line["prediction"]) in plain(" ".join(texts)) for line in own)
    assert html.count('class="example"') >= len(EXAMPLES)


def headings(page) -> set[str]:
    """Of a parsed page; something stands under each of them."""
    for place, (level, text, filled) in enumerate(page.headings):
        deeper = place + 1 < len(page.headings) and page.headings[place + 1][0] > level
        assert filled or deeper, f"nothing stands under {text!r}"
    return {text for _, text, _ in page.headings}


def test_what_is_absent_is_left_out(html, evaluated, trained, parsed):
    parts = {"Figures", "Table", "F1 by kind of answer", "Examples", "Settings and environment"}
    assert headings(parsed(html.split('id="run-2"')[0])) >= parts
    (whole,) = read_runs([evaluated])
    assert isinstance(whole, Evaluation)
    less = headings(parsed(render([Evaluation("a", whole.results | {"kinds": []})])))
    assert parts - less == {"Examples", "F1 by kind of answer"}
    rows = [{"receiver": "r", "condition": "text", "ratio": None, "bits": None, "f1": 0.5}]
    bare = render([Evaluation("bare", {"rows": rows})])
    assert headings(parsed(bare)) == {"bare", "Table", "r"}
    assert not re.search(r'class="(tiles|charts)"|<nav|None', bare)

    own = headings(parsed(html.split('id="run-2"')[1].split('id="run-3"')[0]))
    assert own == {"run", "Events", "Curves", "Most frequent first answer tokens", "Environment", "Config"}
    run = next(run for run in read_runs([trained]) if isinstance(run, Training))
    less = render([Training("a", run.of("text"))])
    assert headings(parsed(less)) == {"a", "Curves"} and "Latent norms" not in less
    event = {"step": 1, "source": "event", "event": "x", "words": "y"}
    assert headings(parsed(render([Training("a", [event])]))) == {"a", "Events"}


def test_runs_stand_side_by_side(evaluated, trained, tmp_path, parsed):
    other = tmp_path / "other"
    shutil.copytree(evaluated, other)
    results = json.loads((other / "results.json").read_text())
    for row in results["rows"]:
        if row["condition"] == "latents":
            row["f1"] = 0.4321
    (other / "results.json").write_text(json.dumps(results))
    runs = [run for run in read_runs([evaluated, other]) if isinstance(run, Evaluation)]
    page = render(runs)
    beside = page.split('id="compared"')[1].split("</section>")[0]
    assert beside.count('value="0.4321"') == 2 * 4 and "did not ask the same" not in beside
    runs[1].results["data"]["hash"] = "another"
    found = compared(runs)
    assert found and not found["same"] and found["names"] == ["evaluated", "other"]
    training = next(run for run in read_runs([trained]) if isinstance(run, Training))
    figure = losses_aside([training, Training("again", training.metrics)])
    assert figure and [label for label, _ in figure.legend] == ["run", "again"]
    assert compared(runs[:1]) is None and losses_aside([training]) is None


def test_the_command_writes_the_page_without_torch(evaluated, tmp_path):
    out = tmp_path / "deep" / "page.html"
    code = (
        "import sys\nfrom latentwire.cli import main\n"
        f"assert main(['report', {str(evaluated)!r}, '-o', {str(out)!r}]) == 0\n"
        "sys.exit('imports torch' if {'torch', 'transformers'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert str(out) in done.stdout and "evaluated" in out.read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_the_extra_is_named_where_it_is_missing(evaluated, tmp_path, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["report", str(evaluated), "-o", str(tmp_path / "page.html")]) == 2
    assert capsys.readouterr().err == f"error: a report needs the package {package}; install latentwire[report]\n"
    assert not list(tmp_path.iterdir())


def test_a_page_may_not_be_a_folder(evaluated, tmp_path, capsys):
    assert cli.main(["report", str(evaluated), "-o", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_half_a_character_does_not_stop_a_page(evaluated, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(evaluated, other)
    lines = [json.loads(line) for line in (other / "predictions.jsonl").open()]
    text = "".join(json.dumps(line | {"prediction": "half \ud83d"}) + "\n" for line in lines)
    (other / "predictions.jsonl").write_text(text)
    report([other], tmp_path / "page.html")
    assert "half ?" in (tmp_path / "page.html").read_text(encoding="utf-8")
