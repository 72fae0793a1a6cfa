"""``lm_eval run`` with the model of this room as its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lm_eval.__main__ import cli_evaluate

from latentwire.errors import UserError


def run(words: Sequence[str]) -> None:
    """Run what ``lm_eval run`` would run with these words; ``--model latentwire`` is said already, and of an option
    that is given twice the last counts. UserError: what the harness refuses."""
    before = sys.argv
    sys.argv = ["latentwire harness", "run", "--model", "latentwire", *words]  # it reads the process's own words
    try:
        cli_evaluate()
    except ValueError as error:  # no such task, options that do not go together
        if os.environ.get("LATENTWIRE_DEBUG"):
            raise
        raise UserError(" ".join(str(error).split())) from None
    finally:
        sys.argv = before
