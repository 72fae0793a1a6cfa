"""For the rooms of experiments: a real evaluation and a real training of small random models, as folders for a report;
a page as a test reads it; and a sweep on tiny readers, its runs made in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from latentwire.experiments import sweep as room
from latentwire.experiments.trial import main
from latentwire.types import Example
from training.conftest import corpus, tiny_tree, tree_of, written

__all__ = ["corpus", "tiny_tree"]  # fixtures are found by their names here

HOSTILE = '<script>alert("x")</script>'
EXAMPLES = [
    Example("pole", "Roald Amundsen arrived on 14 December 1911.", f"Who {HOSTILE}?", ("Roald Amundsen",)),
    Example("city-0", "The city has 1,204 inhabitants.", "How many?", ("1,204", f"1,204 {HOSTILE}")),
    Example("city-1", "The city has 1,204 inhabitants.", "What has the city?", ("inhabitants",)),
    Example("city-2", "The city has 1,204 inhabitants & a pole.", "What else?", ("a pole",)),
]


@pytest.fixture(scope="session")
def evaluated(tiny_wire, tmp_path_factory) -> Path:
    """What an evaluation of the untrained wire leaves: two receivers, all conditions, 4x and 8x, 16 and 8 bits."""
    from latentwire.evaluation.runner import evaluate

    out = tmp_path_factory.mktemp("runs") / "evaluated"
    evaluate(tiny_wire, EXAMPLES, ratios=(4, 8), bits=(16, 8), out=out, progress=False)
    return out


@pytest.fixture(scope="session")
def questions(tmp_path_factory) -> Path:
    """The questions of ``evaluated`` as a file."""
    path = tmp_path_factory.mktemp("questions") / "rows.jsonl"
    rows = [{"id": e.id, "context": e.context, "question": e.question, "answers": list(e.answers)} for e in EXAMPLES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def trained(tiny_readers, corpus, tmp_path_factory) -> Path:
    """What a training of ten steps leaves, with diagnostics and with a collapse watch that speaks at once."""
    from latentwire.training.run import train

    folder = tmp_path_factory.mktemp("trained")
    config = written(tree_of(tiny_readers, corpus), folder)
    more = ["steps=6", "eval_every=3", "save_every=0", "corpus.windows=24", "diagnostics.every=3", "score=4"]
    train(config, [*more, "watch={after: 0, patience: 1, share: 0.1}"], out=folder / "run")
    return folder / "run"


@pytest.fixture(scope="session")
def page(evaluated, trained, questions, tmp_path_factory) -> Path:
    """The file of a page of both."""
    from latentwire.experiments.report import report

    out = tmp_path_factory.mktemp("page") / "new" / "page.html"
    assert report([evaluated, trained], out, questions) == ["evaluated", "run", "run/dev"]
    return out


@dataclass
class Table(HTMLParser):
    """A page, read as a browser would. tables: by receiver, ``(condition, {key: (value, text)})`` of each row.
    headings: ``(level, text, whether anything stands under it before the next one)``. texts: all that is shown."""

    tables: dict[str, list[tuple[str, dict[str, tuple[str, str]]]]] = field(default_factory=dict)
    headings: list[tuple[int, str, bool]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.receiver, self.key, self.value = None, None, ""

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []
        if tag not in ("meta", "link", "path", "br"):
            self.open.append(tag)
        if tag == "table":
            self.receiver = given.get("data-receiver")
            if self.receiver:
                self.tables[self.receiver] = []
        elif tag == "td":
            self.key = given.get("data-key")
        elif tag == "data":
            self.value = given["value"] or ""
        elif tag in ("h2", "h3", "h4"):
            self.headings.append((int(tag[1]), "", False))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass
        if tag == "table":
            self.receiver = None

    def handle_data(self, data):
        if not data.strip() or "style" in self.open:
            return
        self.texts.append(data)
        if self.open and self.open[-1] in ("h2", "h3", "h4"):
            level, text, _ = self.headings[-1]
            self.headings[-1] = (level, text + data, False)
        elif self.headings:
            self.headings[-1] = (*self.headings[-1][:2], True)
        if self.receiver is None or "tbody" not in self.open:
            return
        rows = self.tables[self.receiver]
        if "th" in self.open:
            rows.append((data.strip(), {}))
        elif self.key and "data" in self.open:
            rows[-1][1][self.key] = (self.value, data)


@pytest.fixture
def parsed():
    """Parses a page."""

    def parse(html: str) -> Table:
        page = Table()
        page.feed(html)
        return page

    return parse


SHORT = {"steps": 2, "passages": 2, "asks": 1, "eval_every": 0, "save_every": 0, "corpus.windows": 24, "corpus.made": 0}
"""Overrides of the tiny config that make a run of a second."""


class Here:
    """Stands for a process: does a run's work at once, in this one. begun: the folders of all that were."""

    begun: list[Path]

    def __init__(self, command: list[str], stdout, env, pass_fds, **_) -> None:
        assert command[1:3] == ["-m", "latentwire.experiments.trial"] and len(pass_fds) == 1
        Here.begun.append(Path(command[3]))
        try:
            self.code = main(command[3:])
        except OSError:  # how a test kills it
            self.code = -9

    def wait(self) -> int:
        return self.code


@pytest.fixture
def here(monkeypatch) -> list[Path]:
    """Runs are made in this process; the folders of those that were begun."""
    Here.begun = []
    monkeypatch.setattr(room.subprocess, "Popen", Here)
    return Here.begun


@pytest.fixture
def swept(tiny_tree, tmp_path) -> Callable[..., Path]:
    """Writes a sweep's file on tiny readers, with what is given beside base and overrides."""

    def make(**more) -> Path:
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(tiny_tree))
        tree = {
            "base": "base.yaml",
            "overrides": dict(SHORT),
            "evaluate": {"n": 3, "ratios": [8], "receivers": ["llama"]},
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(tree | more))
        return path

    return make


def history(folder: Path) -> list[dict]:
    """The lines of a sweep's history."""
    return [json.loads(line) for line in (folder / "metrics_history.jsonl").read_text().splitlines()]
