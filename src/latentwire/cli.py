"""The command line: ``latentwire COMMAND …``.

Nothing heavy is imported here or in :mod:`latentwire.commands` at top level, so that ``--help`` answers at once; each
command imports what it needs when it runs. Everything a person can get wrong ends as one line on stderr and exit
code 2; ``LATENTWIRE_DEBUG=1`` shows the traceback behind the line.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from latentwire.commands import (
    data,
    demo,
    doctor,
    embeddings,
    evaluate,
    harness,
    inspect,
    join,
    packets,
    plan,
    report,
    serve,
    store,
    sweep,
    train,
)
from latentwire.errors import UserError

app = typer.Typer(
    name="latentwire",
    help="Send meaning between language models as a few latent vectors: encode a text once, let other models read it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
data_app = typer.Typer(help="Make the files that training reads.", no_args_is_help=True)
store_app = typer.Typer(help="Look into a folder of many packets.", no_args_is_help=True)


def _version(wanted: bool) -> None:
    if wanted:
        from latentwire import __version__

        typer.echo(f"latentwire {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    # the callback above does the work; this function only gives typer the option
    del version


app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("plan")(plan.plan)
app.command("join")(join.join)
app.command("sweep")(sweep.sweep)
app.command("eval")(evaluate.evaluate)
app.command("report")(report.report)
app.command("harness", context_settings=harness.PASSED_ON)(harness.harness)
app.command("encode")(packets.encode)
app.command("generate")(packets.generate)
app.command("ask")(packets.ask)
app.command("inspect")(inspect.inspect)
app.command("embeddings")(embeddings.embeddings)
app.command("serve")(serve.serve)
app.command("prompt-embeds")(serve.prompt_embeds)
app.command("doctor")(doctor.doctor)
data_app.command("prepare")(data.prepare)
app.add_typer(data_app, name="data")
store_app.command("list")(store.list_packets)
store_app.command("verify")(store.verify)
store_app.command("show")(store.show)
app.add_typer(store_app, name="store")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a check failed, 2 something to put right, 130 interrupted.

    argv: words after ``latentwire``; those of the process when None.
    """
    try:
        app(args=argv, prog_name="latentwire")
    except SystemExit as stop:  # typer ends every command so, with what it was asked to return
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except (UserError, OSError) as error:
        if os.environ.get("LATENTWIRE_DEBUG"):
            raise
        line = str(error) if isinstance(error, UserError) else _of_the_system(error)
        print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


def _of_the_system(error: OSError) -> str:
    """What the operating system refused, with the file in front: ``my.txt: No such file or directory``."""
    reason = error.strerror or " ".join(str(error).split())
    return f"{error.filename}: {reason}" if error.filename else reason


if __name__ == "__main__":
    sys.exit(main())
