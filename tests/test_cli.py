"""The command line: what a person types, what comes back, and what each slip ends in."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from latentwire import __version__, cli
from latentwire.commands import demo as demo_command
from latentwire.commands import doctor
from latentwire.commands.options import numbers, read_text, words
from latentwire.errors import UserError

COMMANDS = (
    "demo", "train", "plan", "join", "sweep", "eval", "report", "harness", "encode", "generate", "ask", "inspect",
    "embeddings", "serve", "prompt-embeds", "store", "doctor", "data",
)  # fmt: skip


def one_line_error(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """Run a command that must end in exit code 2 and one line on stderr; the line without its ``error:``."""
    assert cli.main(argv) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: ")
    assert "\n" not in err
    return err.removeprefix("error: ")


def test_help_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    assert cli.main([command, "--help"]) == 0
    assert "Usage: latentwire" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["latentwire", __version__]


def test_the_package_itself_is_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "latentwire", "--version"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"latentwire {__version__}\n"


def test_unknown_command_is_refused(capsys):
    assert cli.main(["transmogrify"]) == 2
    assert "transmogrify" in capsys.readouterr().err


def test_missing_text_file(capsys, tmp_path):
    path = tmp_path / "absent.txt"
    line = one_line_error(capsys, ["encode", "sandbox", str(path), "-o", str(tmp_path / "p.lw")])
    assert str(path) in line


def test_empty_text_is_refused_before_any_model_loads(capsys, tmp_path):
    path = tmp_path / "empty.txt"
    path.write_text(" \n")
    assert "empty" in one_line_error(capsys, ["ask", "sandbox", "--text", str(path), "--question", "Who?"])


def test_text_in_another_encoding_is_refused(capsys, tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("Malmö".encode("latin-1"))
    assert "UTF-8" in one_line_error(capsys, ["encode", "sandbox", str(path), "-o", str(tmp_path / "p.lw")])


def test_a_directory_in_place_of_a_text(capsys, tmp_path):
    assert str(tmp_path) in one_line_error(capsys, ["encode", "sandbox", str(tmp_path), "-o", str(tmp_path / "p.lw")])


def test_missing_packet(capsys, tmp_path):
    assert "latentwire encode" in one_line_error(capsys, ["inspect", str(tmp_path / "absent.lw")])


def test_packet_that_is_none(capsys, tmp_path):
    path = tmp_path / "noise.lw"
    path.write_bytes(b"this is no packet at all, just some words")
    assert str(path) in one_line_error(capsys, ["inspect", str(path)])


def test_missing_config(capsys, tmp_path):
    assert "absent.yaml" in one_line_error(capsys, ["train", str(tmp_path / "absent.yaml")])


@pytest.mark.parametrize("text", ["four", "0", "-4", "4,,x", "", "4.5"])
def test_numbers_are_checked(text):
    with pytest.raises(UserError, match="--ratio"):
        numbers("--ratio", text)


def test_lists_are_read():
    assert numbers("--ratio", "4, 8") == (4, 8)
    assert words("text, latents,") == ("text", "latents")
    assert words(None) is None


def test_text_from_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("  A paragraph.\n"))
    assert read_text(Path("-")) == "A paragraph."


def test_question_without_text_is_refused(capsys):
    assert "--text" in one_line_error(capsys, ["demo", "--question", "Who?"])


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    monkeypatch.setenv("LATENTWIRE_DEBUG", "1")
    with pytest.raises(UserError):
        cli.main(["inspect", str(tmp_path / "absent.lw")])


def test_questions_are_asked_for(monkeypatch):
    typed = iter(["Who?", "When?", ""])
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(typed))
    assert demo_command._ask_for_questions() == ["Who?", "When?"]


def test_doctor_goes_on_after_a_failed_check(monkeypatch):
    def broken():
        raise UserError("the cache cannot be written")
        yield

    monkeypatch.setattr(doctor, "_cache", broken)
    found = list(doctor.findings())
    assert any(finding.ok is False and "cannot be written" in finding.found for finding in found)
    assert found[-1].what in doctor.EXTRAS


def test_drawn_passages_depend_on_the_seed_alone():
    from latentwire.sandbox.demo import drawn_passages
    from latentwire.types import Example

    examples = [
        Example(f"squad_v1-valid-Title_{title}-{p}-{q}", f"{title} {p} " + "word " * 80, f"Question {q}?", ("word",))
        for title in range(8)
        for p in range(3)
        for q in range(3)
    ]
    first = drawn_passages(examples, 3, seed=0)
    assert first == drawn_passages(examples, 3, seed=0)
    assert first != drawn_passages(examples, 3, seed=1)
    assert len({passage.title for passage in first}) == 3
    assert {passage.title.removeprefix("Title ") for passage in first} <= {str(n) for n in range(8)}


def test_a_device_that_is_none_is_told_before_anything_is_loaded(capsys, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The city is small.")
    ask = ["ask", "sandbox", "--text", str(text), "--question", "What is small?"]
    for argv in (ask, ["eval", "sandbox", "--n", "1"]):
        assert "--device abacus" in one_line_error(capsys, [*argv, "--device", "abacus"])
