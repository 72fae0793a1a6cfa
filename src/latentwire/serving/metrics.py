"""Counts that Prometheus reads, in its text format; a few lines, so no package is needed for it."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


class Counter:
    """A number for each combination of labels, which only grows."""

    kind = "counter"

    def __init__(self, name: str, about: str, *labels: str) -> None:
        self.name, self.about, self.labels = name, about, labels
        self.values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}
        self.lock = threading.Lock()

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Count ``by`` more, for these values of the labels."""
        with self.lock:
            self.values[labels] = self.values.get(labels, 0.0) + by

    def lines(self) -> list[str]:
        """Samples, without the heading."""
        with self.lock:
            return [f"{self.name}{marked(self.labels, key)} {value:g}" for key, value in sorted(self.values.items())]


class Gauge:
    """A number that is asked for when it is read."""

    kind = "gauge"

    def __init__(self, name: str, about: str, read: Callable[[], float]) -> None:
        self.name, self.about, self.read = name, about, read

    def lines(self) -> list[str]:
        """One sample."""
        return [f"{self.name} {self.read():g}"]


class Histogram:
    """How often a value was at most each edge."""

    kind = "histogram"

    def __init__(self, name: str, about: str, edges: tuple[float, ...], *labels: str) -> None:
        self.name, self.about, self.edges, self.labels = name, about, edges, labels
        self.counts: dict[tuple[str, ...], list[int]] = {}
        self.sums: dict[tuple[str, ...], float] = {}
        self.lock = threading.Lock()

    def see(self, value: float, *labels: str) -> None:
        """Take a value in."""
        with self.lock:
            counts = self.counts.setdefault(labels, [0] * (len(self.edges) + 1))
            counts[bisect_left(self.edges, value)] += 1
            self.sums[labels] = self.sums.get(labels, 0.0) + value

    def lines(self) -> list[str]:
        """Cumulated buckets, sum and count of each combination of labels."""
        out = []
        with self.lock:
            for key, counts in sorted(self.counts.items()):
                total = 0
                for edge, count in zip((*map("{:g}".format, self.edges), "+Inf"), counts, strict=True):
                    total += count
                    out.append(f"{self.name}_bucket{marked((*self.labels, 'le'), (*key, edge))} {total}")
                out.append(f"{self.name}_sum{marked(self.labels, key)} {self.sums[key]:g}")
                out.append(f"{self.name}_count{marked(self.labels, key)} {total}")
        return out


def marked(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    """``{route="/v1/latents"}``, or nothing."""
    escaped = [value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for value in values]
    pairs = ",".join(f'{name}="{value}"' for name, value in zip(names, escaped, strict=True))
    return f"{{{pairs}}}" if pairs else ""


class Metrics:
    """All that a server counts."""

    def __init__(self) -> None:
        self.requests = Counter("latentwire_requests_total", "Requests that were answered.", "route", "status")
        self.errors = Counter("latentwire_errors_total", "Requests that were refused or failed.", "route", "code")
        self.seconds = Histogram(
            "latentwire_request_seconds", "From the first byte of a request to the last of its answer.", SECONDS,
            "route",
        )  # fmt: skip
        self.batches = Histogram("latentwire_batch_rows", "Rows that were computed together.", ROWS, "work")
        self.tokens = Counter("latentwire_tokens_total", "Positions of prompts read, and tokens written.", "kind")
        self.gone = Counter("latentwire_cancelled_total", "Rows that were dropped because their client had left.")
        self.more: list[Gauge] = []

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Show one more number."""
        self.more.append(Gauge(name, about, read))

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        out = []
        for each in (self.requests, self.errors, self.seconds, self.batches, self.tokens, self.gone, *self.more):
            out += [f"# HELP {each.name} {each.about}", f"# TYPE {each.name} {each.kind}", *each.lines()]
        return "\n".join(out) + "\n"
