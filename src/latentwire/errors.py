"""The one error that is meant for a person to read."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: the message says what was wrong, what was expected, and what to do.

    The command line prints it as one line and exits with code 2; programs may catch it.
    """
