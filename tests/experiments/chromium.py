"""A headless Chromium that a test talks to, without any package: DevTools' protocol over a pair of pipes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60


def binary() -> str | None:
    """The first of :data:`NAMES` that is installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Chromium:
    """One page of a browser of its own. events: what it reported, in order; console messages and requests are among
    them. Used as a context; ``folder`` gets its profile."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.events, self.count, self.session = folder, [], 0, None
        self.rest = b""

    def __enter__(self) -> Chromium:
        read_in, self.into = os.pipe()
        self.out, write_out = os.pipe()
        # Chromium reads from 3 and writes to 4; a shell of its own gives the pipes these numbers
        command = [
            "bash", "-c", f'exec "$@" 3<&{read_in} 4>&{write_out}', "chromium",
            binary() or "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--remote-debugging-pipe", f"--user-data-dir={self.folder}", "about:blank",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, pass_fds=(read_in, write_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read_in)
        os.close(write_out)
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.ask("Browser.close")
        self.process.terminate()
        self.process.wait(SECONDS)
        os.close(self.into)
        os.close(self.out)

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        """Send one command, and return what it answers; events on the way are kept."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": given}
        if self.session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self.session
        os.write(self.into, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.next()
            if answer.get("id") == self.count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def next(self) -> dict[str, Any]:
        """The next message; an event is also kept."""
        while b"\0" not in self.rest:
            part = os.read(self.out, 1 << 20)
            if not part:
                raise OSError("the browser is gone")
            self.rest += part
        line, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, page: Path | str, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Load a file or an address at that size and wait until it is there. width: of the window, in CSS pixels; below
        600 it is a phone's."""
        phone = width < 600
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        seen = len(self.events)
        self.ask("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events[seen:]):
            self.next()

    def value(self, script: str) -> Any:
        """What a JavaScript expression is in the page, as plain data."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """All errors and console messages so far."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def requests(self) -> list[str]:
        """Addresses of all that was asked for so far."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]
