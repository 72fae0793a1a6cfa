"""``latentwire demo``: the whole path, shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentwire.commands.options import SmokeOption, quiet_libraries, read_text
from latentwire.errors import UserError


def demo(
    text: Annotated[Path | None, typer.Option(metavar="FILE", help="Your own paragraph; - for stdin.")] = None,
    question: Annotated[
        list[str] | None, typer.Option("--question", "-q", help="A question about it; may be given several times.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Questions in the evaluation.")] = 100,
    seed: Annotated[int, typer.Option(help="Which passages and questions are drawn.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="For results.json; runs/demo if left out.")] = None,
    smoke: SmokeOption = False,
) -> None:
    """Two different language models answer questions about a paragraph from the same few latent vectors."""
    if question and text is None:
        raise UserError("--question asks about a text of your own; give it with --text FILE")
    context = None if text is None else read_text(text)
    questions = list(question or ())
    if context is not None and not questions:
        questions = _ask_for_questions()

    quiet_libraries()
    from latentwire.sandbox import demo as sandbox_demo

    if context is None:
        sandbox_demo.run(n=4 if smoke else n, seed=seed, out=out, smoke=smoke)
    else:
        sandbox_demo.run_own(context, questions)


def _ask_for_questions() -> list[str]:
    """Questions typed one a line; an empty line ends them."""
    typer.echo("Your questions, one a line; an empty line ends them.", err=True)
    questions = []
    while line := typer.prompt(">", default="", show_default=False, prompt_suffix=" ", err=True).strip():
        questions.append(line)
    if not questions:
        raise UserError("there was no question; give one with --question")
    return questions
