"""A run that is told to stop saves first: SIGTERM, as clusters send it before they take a machine away."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any


class Stopped(SystemExit):
    """The run was told to stop, and has saved. As an exit it has the code that a shell gives for the signal (143)."""

    def __init__(self, step: int) -> None:
        super().__init__(128 + signal.SIGTERM)
        self.step = step


class Stopping(AbstractContextManager["Stopping"]):
    """Notes SIGTERM while a run goes on, instead of dying of it. A second one is obeyed at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Stopping:
        # only there may handlers be set; a run in another thread dies of the signal with its process
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise SystemExit(128 + number)
        self.asked = True
