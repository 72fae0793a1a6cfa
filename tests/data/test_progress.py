"""The bar: nothing in a log file, and nothing on a terminal while the work is short."""

from __future__ import annotations

import io
import sys

from latentwire.data import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, patience):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "PATIENCE", patience)
    with progress.progress("work", 10) as show:
        for n in range(10):
            show(n, f"{n} rows")
    return stream.getvalue()


def test_bar_shows_only_for_long_work_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert shown(monkeypatch, io.StringIO(), -1) == ""
    assert shown(monkeypatch, Terminal(), 60) == ""
    assert "work" in shown(monkeypatch, Terminal(), -1)
