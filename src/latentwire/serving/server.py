"""The server as a process: where it listens, and how it ends.

On SIGTERM or Ctrl-C it takes no new connections, answers what it has accepted, and ends. A second Ctrl-C ends it at
once.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence

import uvicorn

from latentwire.errors import UserError
from latentwire.serving.app import build
from latentwire.serving.service import Service


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: any that is free. UserError: it cannot."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot listen on {host} port {port}: {reason}; choose others with --host and --port"
        ) from None


def make(service: Service, keys: Sequence[str] = (), grace: int = 60) -> uvicorn.Server:
    """A server that is not started. grace: seconds that answers may take once it should end."""
    config = uvicorn.Config(
        build(service, keys), log_level="warning", access_log=False, server_header=False, ws="none", lifespan="on",
        timeout_graceful_shutdown=grace,
    )  # fmt: skip
    return uvicorn.Server(config)


def run(
    service: Service, host: str, port: int, keys: Sequence[str] = (), grace: int = 60,
    ready: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """Serve until somebody ends it. ready: told the address once it listens."""
    sock = listen(host, port)
    server = make(service, keys, grace)
    # for the moment before uvicorn listens to signals, and for when it raises the one that ended it once more: with
    # the usual handler a server that did all that was asked would end as if it had been killed
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    shown = f"[{host}]" if sock.family == socket.AF_INET6 else host
    ready(f"http://{shown}:{sock.getsockname()[1]}")
    try:
        server.run(sockets=[sock])
    except KeyboardInterrupt:
        return
