"""CUDA graphs: work that was given to the GPU once is recorded, and started again in one call."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import torch

T = TypeVar("T")
Record = Callable[[Callable[[], Any], Any], tuple[Any, Any]]
"""From work and another graph's memory, the graph and what each replay leaves: :func:`captured` on some stream."""
RECORDING = threading.RLock()
"""A process records one thing at a time, whoever decodes in its threads."""
WARM = 2
"""Ordinary passes before one is recorded: libraries make what they need at the first."""


def captured(work: Callable[[], T], pool: Any, stream: Any) -> tuple[Any, T]:
    """``work`` as a CUDA graph, recorded on ``stream``, and the tensors that each replay fills again.

    pool: memory of another graph, for graphs of which only one runs at a time.
    """
    graph = torch.cuda.CUDAGraph()
    # other threads (a process group's watchdog, say) may ask the GPU things meanwhile
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        left = work()
    return graph, left


@contextlib.contextmanager
def on_stream(stream: Any) -> Generator[None]:
    """Work on ``stream``, behind what was given to the current one before and in front of what follows."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)
