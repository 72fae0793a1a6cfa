"""What the README tells a newcomer to type is typed here, in its ``--smoke`` form where the command has one."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from latentwire import cli
from latentwire.data.rows import read_examples
from latentwire.data.squad import shipped_valid
from latentwire.types import Example

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMOKED = {"demo", "train", "eval"}
TEXT = (
    "The Norwegian expedition to the South Pole was led by Roald Amundsen. He and four others arrived at the pole on "
    "14 December 1911, five weeks before a British party under Robert Falcon Scott."
)


def commands() -> list[str]:
    """Every ``latentwire …`` line of the bash blocks, in order."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("latentwire ")]


@pytest.fixture
def newcomer(tmp_path, monkeypatch):
    """A directory with a paragraph in ``my.txt``, the configs, and a little data where the README has it."""
    (tmp_path / "my.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "pole", "text": TEXT}) + "\n", encoding="utf-8")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    write_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_data(folder: Path) -> None:
    """``squad/train.jsonl`` and ``text/some.jsonl`` of the right shape, made from the shipped questions.

    Under other titles, of which some are kept aside: training must never read the shipped questions themselves.
    """
    contexts: dict[str, list[Example]] = {}
    for example in read_examples(shipped_valid()):
        contexts.setdefault(example.context, []).append(example)
    rows, articles = [], []
    short = sorted(contexts.items(), key=lambda item: len(item[0]))[:80]
    for number, (context, examples) in enumerate(short):
        articles.append({"title": f"Title {number}", "text": f"{context} {context}"})
        for q, example in enumerate(examples[:2]):
            row = {"context": context, "question": example.question, "answers": list(example.answers)}
            rows.append({"id": f"squad_v1-train-Title_{number}-0-{q}"} | row)
    for path, lines in ((folder / "squad" / "train.jsonl", rows), (folder / "text" / "some.jsonl", articles)):
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def run(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = shlex.split(line)[1:]
    if argv[0] in SMOKED:
        argv.append("--smoke")
    if "configs/sandbox/wire.yaml" in argv:  # slow at full width: as it is, tests/training runs it on small readers
        argv += ["optimizer=adamw", "draws=[{ratio: 4}]", "wire.encoder.d_z=32", "corpus.shortest=16"]
        argv += ["wire.encoder.window=96", "corpus.longest=96"]
        argv += [f"wire.links.{name}.injection.width=32" for name in ("llama", "qwen2")]
    assert cli.main(argv) == 0, f"{line}\n{capsys.readouterr().err}"


@pytest.mark.slow
def test_every_readme_command_runs(newcomer, capsys):
    lines = [line for line in commands() if not line.startswith(("latentwire train", "latentwire data"))]
    assert len(lines) >= 7
    for line in lines:  # in their order: one reads the packet that another wrote
        run(line, capsys)


# `data prepare` is not here: its inputs are gigabytes; tests/data runs it on small ones
@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("latentwire train")])
def test_every_readme_training_runs(newcomer, capsys, line):
    run(line, capsys)


def test_the_python_example_runs(newcomer, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    assert {"llama", "qwen2"} <= {line.split()[0] for line in capsys.readouterr().out.splitlines() if line}
