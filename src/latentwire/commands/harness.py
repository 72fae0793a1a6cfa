"""``latentwire harness``."""

from __future__ import annotations

import typer

from latentwire.commands.options import quiet_libraries

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""How a command takes options that are another program's."""


def harness(context: typer.Context) -> None:
    """Run tasks of lm-evaluation-harness with their context given as latents, as text or not at all.

    Options are those of `lm_eval run`; `--model latentwire` is said already.

    latentwire harness --tasks examples/harness/squad.yaml --model_args
    wire=sandbox,receiver=llama,ratio=4,condition=latents --limit 100
    """
    quiet_libraries()
    from latentwire.harness.command import run

    run(context.args)
