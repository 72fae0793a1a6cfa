"""Many clients at once against ``latentwire serve``: ``python benchmarks/serve_load.py [--seconds 60] [--out FILE]``.

Two servers of one wire on loopback, one that answers what waits together in one batch and one that answers one by one,
take turns under the same load: every client asks, waits for the answer, and asks again; every second one as a stream.
Each answer is compared with the one that the wire gives offline, alone. Clients run on the same cores as the servers.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentwire import Packet, Wire, __version__
from latentwire.data.progress import progress
from latentwire.data.rows import read_examples
from latentwire.data.squad import shipped_valid

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "serve-load-cpu.json", ROOT / "docs" / "serving.md"
BEGIN, END = "<!-- load:begin -->\n", "<!-- load:end -->"
ROUNDS = 2
"""Turns of each server: a machine that others use too is not the same all the time."""


@dataclass(frozen=True)
class Case:
    """A request and the answer that it must get."""

    body: dict[str, Any]
    answer: str


@dataclass
class Tally:
    """What came of the requests to one server. lost: never answered. mixed: answered with something else."""

    seconds: list[float] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    tokens: int = 0
    lost: int = 0
    mixed: int = 0
    wall: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def row(self, batch: int) -> dict[str, Any]:
        """The figures."""
        p50, p99 = np.percentile(self.seconds, (50, 99)) if self.seconds else (0.0, 0.0)
        return {
            "max_batch": batch,
            "answers": len(self.seconds),
            "lost": self.lost,
            "mixed_up": self.mixed,
            "p50_seconds": round(float(p50), 3),
            "p99_seconds": round(float(p99), 3),
            "answers_per_second": round(len(self.seconds) / self.wall, 2),
            "tokens_per_second": round(self.tokens / self.wall, 2),
            "mean_batch": round(float(np.mean(self.batches)), 1) if self.batches else 0,
            "seconds": round(self.wall, 1),
        }


def cases(wire: Wire, receivers: list[str], count: int, ratio: int, most: int) -> Iterator[Case]:
    """Questions about shipped passages, in turn for each receiver, with their offline answers."""
    examples = read_examples(shipped_valid())[:: max(1, 4851 // count)][:count]
    for number, example in enumerate(examples):
        data = wire.encode([example.context], ratio=ratio)[0].to_bytes(bits=8)
        name = receivers[number % len(receivers)]
        answer = wire.receiver(name).generate(Packet.from_bytes(data), example.question, max_new_tokens=most)
        latent = {"type": "latent", "latent": {"data": base64.b64encode(data).decode()}}
        content = [latent, {"type": "text", "text": example.question}]
        yield Case({"model": name, "messages": [{"role": "user", "content": content}], "max_tokens": most}, str(answer))


@contextmanager
def server(wire: str, batch: int, threads: int) -> Generator[str]:
    """``host:port`` of a server that answers up to ``batch`` prompts together."""
    command = [sys.executable, "-m", "latentwire", "serve", wire, "--port", "0", "--max-batch", str(batch)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split("http://")[1].split(",")[0]
    finally:
        process.terminate()
        process.wait(60)


def ask(connection: http.client.HTTPConnection, case: Case, stream: bool) -> tuple[str, int, int]:
    """Text, tokens and batch of an answer."""
    body = json.dumps(
        {**case.body, "stream": stream, **({"stream_options": {"include_usage": True}} if stream else {})}
    )
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read().decode()
    if answer.status != 200:
        raise OSError(content)
    if not stream:
        whole = json.loads(content)
        text = whole["choices"][0]["message"]["content"]
        return text, whole["usage"]["completion_tokens"], whole["latentwire"][0]["batch"]
    *events, last = [line.removeprefix("data: ") for line in content.splitlines() if line]
    assert last == "[DONE]", content
    chunks = [json.loads(event) for event in events]
    text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    batch = next(chunk["latentwire"][0]["batch"] for chunk in chunks if "latentwire" in chunk)
    return text, chunks[-1]["usage"]["completion_tokens"], batch


def load(address: str, pool: list[Case], clients: int, seconds: float, tally: Tally) -> None:
    """Let so many clients ask for so long; what they have asked is waited for."""

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=300)
        turn = number
        while time.perf_counter() < end:
            case, begun = pool[turn % len(pool)], time.perf_counter()
            turn += clients + 1
            try:
                text, tokens, batch = ask(connection, case, stream=number % 2 == 1)
            except (OSError, http.client.HTTPException, AssertionError):
                connection.close()
                with tally.lock:
                    tally.lost += 1
                continue
            with tally.lock:
                tally.seconds.append(time.perf_counter() - begun)
                tally.batches.append(batch)
                tally.tokens += tokens
                tally.mixed += text != case.answer

    begun = time.perf_counter()
    end = begun + seconds
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.wall += time.perf_counter() - begun


def measure(
    wire: str,
    receivers: list[str],
    clients: int,
    seconds: float,
    questions: int,
    ratio: int,
    most: int,
    batch: int,
    threads: int,
) -> dict[str, Any]:
    """Both servers under the same load, in turns."""
    busy = round(os.getloadavg()[0], 1)
    torch.set_num_threads(threads)
    opened = Wire.from_pretrained(wire)
    pool = []
    with progress("offline answers", questions) as show:
        for case in cases(opened, receivers, questions, ratio, most):
            pool.append(case)
            show(len(pool), case.answer)
    fingerprint = opened.fingerprint.hex()
    del opened
    tallies = {batch: Tally(), 1: Tally()}
    with ExitStack() as stack:
        addresses = {each: stack.enter_context(server(wire, each, threads)) for each in tallies}
        with progress("load", 2 * ROUNDS) as show:
            for address in addresses.values():
                load(address, pool, 2, 0.1, Tally())  # the first answers of a process are slow
            for turn in range(ROUNDS):
                for number, (each, address) in enumerate(addresses.items()):
                    show(2 * turn + number, f"batches of up to {each}")
                    load(address, pool, clients, seconds / ROUNDS, tallies[each])
    rows = [tally.row(each) for each, tally in tallies.items()]
    return {
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "cores": os.cpu_count(),
        "threads": threads,
        "busy": busy,
        "versions": {"latentwire": __version__, "torch": torch.__version__},
        "wire": fingerprint,
        "receivers": receivers,
        "clients": clients,
        "questions": len(pool),
        "ratio": ratio,
        "bits": 8,
        "max_tokens": most,
        "rows": rows,
        "batched_against_one_by_one": round(rows[0]["tokens_per_second"] / max(rows[1]["tokens_per_second"], 1e-9), 2),
    }


def table(facts: dict[str, Any]) -> str:
    """The figures as they stand in docs/serving.md."""
    names = (
        "max_batch",
        "mean_batch",
        "answers",
        "lost",
        "mixed_up",
        "p50_seconds",
        "p99_seconds",
        "tokens_per_second",
    )
    heads = ("batch up to", "mean batch", "answers", "lost", "mixed up", "p50 s", "p99 s", "tokens/s")
    lines = ["| " + " | ".join(heads) + " |", "|" + " ---: |" * len(heads)]
    lines += ["| " + " | ".join(f"{row[name]:,}" for name in names) + " |" for row in facts["rows"]]
    threads = f"{facts['threads']} thread{'s' if facts['threads'] > 1 else ''}"
    return "\n".join(lines) + (
        f"\n\nWith batches {facts['batched_against_one_by_one']} times as many tokens per second: {facts['clients']} "
        f"clients, {facts['questions']} questions to {' and '.join(f'`{name}`' for name in facts['receivers'])} at "
        f"{facts['ratio']}×, {threads} for each server on a {facts['device'].upper()} of {facts['cores']} cores that "
        f"clients and, with a load average of {facts['busy']} before it began, others used too; encoder "
        f"`{facts['wire']}`.\n"
    )


def fill(page: str, facts: dict[str, Any]) -> str:
    """The page with the table made anew."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + table(facts) + END + rest.partition(END)[2]


def main() -> None:
    """The command. Exit code 1: an answer was lost or mixed up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--wire", default="sandbox")
    parser.add_argument("--receivers", nargs="*", default=["llama", "qwen2"])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60, help="of load for each of the two servers")
    parser.add_argument("--questions", type=int, default=64, help="different ones")
    parser.add_argument("--ratio", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64, help="of the server that batches")
    parser.add_argument("--threads", type=int, default=1, help="of each server; clients need a core too")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    parser.add_argument("--fill", action="store_true", help="put the table of the results file into docs/serving.md")
    given = parser.parse_args()
    if given.fill:
        facts = json.loads(RESULTS.read_text(encoding="utf-8"))
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), facts), encoding="utf-8")
        return
    facts = measure(
        given.wire, given.receivers, given.clients, given.seconds, given.questions, given.ratio, given.max_tokens,
        given.batch, given.threads,
    )  # fmt: skip
    print(json.dumps(facts, indent=1))
    if given.out:
        given.out.write_text(json.dumps(facts, indent=1) + "\n")
    if any(row["lost"] or row["mixed_up"] for row in facts["rows"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
