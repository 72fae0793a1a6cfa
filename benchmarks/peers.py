"""Published prompt compression beside the wire: ``python benchmarks/peers.py --env-dir DIR``.

LLMLingua and kvpress, from the package registry, on the sandbox's receivers: the same questions, the same layout, and
as many K/V positions for the context as the wire's latents take, in one run with full text, no context, latents and the
first M tokens. Each runs in an environment of its own (``peers/NAME.txt`` has its pins), as its own process; what was
answered is kept, and a run that was stopped goes on. A peer that cannot run stands in the file with its reason.

    python benchmarks/peers.py --env-dir DIR --choose 30 --data-dir DATA    (presses of kvpress on questions of dev)
    python benchmarks/peers.py --env-dir DIR --n 200                        (the figures, on questions of valid)
    python benchmarks/peers.py --table                                      (the table of docs/results.md)

No peer sees the question before it compresses: neither does the wire.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers_items import items_of, older_checkpoint, write_lines
from peers_process import WORKERS, Peer, bar, module, read_answers, run_worker
from peers_score import agreement, best, own_rows, peer_rows, with_retention
from peers_table import RESULTS, fill, table

if TYPE_CHECKING:
    from latentwire.types import Example
    from latentwire.wire import Wire

ROOT = Path(__file__).resolve().parents[1]
OWN = ("text", "none", "latents", "budget-question")
CLASSIFIER = "microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank"
BASELINE = 60
"""Questions on which a peer's environment is checked to read the text as this one does."""
CHOICE = "peers-choice.json"


def peers(given: argparse.Namespace) -> list[Peer]:
    """Who takes part. UserError: presses were neither chosen nor named."""
    from latentwire.errors import UserError

    choice = given.results.with_name(CHOICE)
    if given.presses is None and not choice.is_file():
        raise UserError(f"there is no {choice.name}; --choose N makes it, or --presses names some of kvpress")
    presses = given.presses or json.loads(choice.read_text(encoding="utf-8"))["chosen"]
    known = [
        Peer("kvpress", "kvpress", "with_kvpress.py", tuple(f"kvpress {name}" for name in presses), {}),
        Peer("llmlingua", "llmlingua", "with_llmlingua.py", ("llmlingua", "llmlingua-aligned"), {}),
        Peer("llmlingua-2", "llmlingua", "with_llmlingua.py", ("llmlingua-2",), {"classifier": given.classifier}),
    ]
    return [peer for peer in known if not given.only or peer.name in given.only]


def answers_of(
    peer: Peer, name: str, source: Path, rows: list[dict[str, Any]], ratios: Sequence[int], given: argparse.Namespace
) -> tuple[dict, dict]:
    """What a peer answers to the items of receiver ``name``, and why some of it is missing (``read_answers``)."""
    from latentwire.config import config_hash
    from latentwire.evaluation.given import MAX_NEW_TOKENS
    from latentwire.prompt import PromptConfig

    envs = module("environment")
    if not envs.is_ready(peer.environment, given.env_dir):
        say(f"{peer.environment}: making its environment, some minutes ({given.env_dir / peer.environment}.log)")
    if why := envs.make(peer.environment, given.env_dir):
        return {}, {(method, None): f"its environment could not be made: {why}" for method in peer.methods}
    code = [
        (WORKERS / file).read_text() for file in ("reader.py", "presses.py", peer.worker, f"{peer.environment}.txt")
    ]
    # answers depend on all of this; those to other items, or of another worker, are never taken for these
    folder = given.out / f"{peer.name}-{name}-{config_hash({'items': rows, 'code': code, 'extra': peer.extra})}"
    ids = [row["id"] for row in rows]
    methods = [*(() if peer.extra else ("text",)), *peer.methods]
    found, failed = read_answers(folder / "answers.jsonl", ids, BASELINE)
    if not failed and len(found) == len(peer.methods) * len(ratios) + ("text" in methods):
        return found, failed
    write_lines(folder / "items.jsonl", rows)
    job = {
        "items": str(folder / "items.jsonl"),
        "answers": str(folder / "answers.jsonl"),
        "receiver": str(older_checkpoint(source, given.out / "checkpoints" / name)),
        "methods": methods,
        "ratios": list(ratios),
        "context": PromptConfig().context,
        "most": MAX_NEW_TOKENS,
        "baseline": BASELINE,
        **peer.extra,
    }
    total = len(rows) * len(peer.methods) * len(ratios) + min(len(rows), BASELINE) * ("text" in methods)
    python = envs.python_of(given.env_dir / peer.environment)
    with bar(f"{peer.name}, {name}", total) as tick:
        why = run_worker(python, WORKERS / peer.worker, job, folder, given.threads, tick)
    found, failed = read_answers(folder / "answers.jsonl", ids, BASELINE)
    if why:
        failed |= {(method, None): why for method in peer.methods if not any(key[0] == method for key in found)}
    return found, failed


def kept_items(wire: Wire, examples: list[Example], given: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """``items_of`` of these examples, kept: how many latents a text has is only known once it is encoded."""
    from latentwire.config import config_hash

    asked = {"ids": [e.id for e in examples], "ratios": given.ratio, "receivers": given.receivers}
    path = given.out / f"items-{config_hash({'encoder': wire.fingerprint.hex(), **asked})}.json"
    if not path.is_file():
        say(f"encoding {len(examples)} texts at {len(given.ratio)} ratios, to count their latents")
        rows = items_of(wire, examples, given.ratio, given.receivers)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(rows), encoding="utf-8")
        part.replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


def measure(
    wire: Wire, examples: list[Example], asked: list[Peer], given: argparse.Namespace, said: Sequence[dict] = ()
) -> dict[str, Any]:
    """Rows, failures and baselines of some peers, receiver by receiver. said: what the wire's receivers answered."""
    from latentwire.shipped import resolve

    items = kept_items(wire, examples, given)
    rows, failed, baselines = [], [], []
    for peer in asked:
        for name in given.receivers:
            source = Path(resolve(wire.settings.links[name].receiver))
            found, missing = answers_of(peer, name, source, items[name], given.ratio, given)
            texts = found.pop(("text", None), None)
            if texts is not None:
                baselines.append(
                    {"peer": peer.name, "receiver": name, "answers": [line["prediction"] for line in texts]}
                )
            rows += peer_rows(peer.name, name, found, examples, given.seed, said)
            for (method, ratio), why in missing.items():
                failed.append({"peer": peer.name, "receiver": name, "condition": method, "ratio": ratio, "why": why})
                say(f"{peer.name}, {name}: {method} could not be measured: {why}")
    envs = module("environment")
    ready = [name for name in dict.fromkeys(peer.environment for peer in asked) if envs.is_ready(name, given.env_dir)]
    versions = {name: envs.versions(name, given.env_dir) for name in ready}
    return {"rows": rows, "failed": failed, "baselines": baselines, "peers": versions}


def choose(wire: Wire, given: argparse.Namespace) -> dict[str, Any]:
    """Every press on questions of dev; the best two by F1, over receivers and ratios."""
    from random import Random

    from latentwire.data.rows import data_dir
    from latentwire.data.squad import load_split

    names = given.presses or list(module("presses").PRESSES)
    examples = Random(given.seed).sample(load_split(data_dir(given.data_dir), "dev"), given.choose)
    peer = Peer("kvpress", "kvpress", "with_kvpress.py", tuple(f"kvpress {name}" for name in names), {})
    got = measure(wire, examples, [peer], given)
    got.pop("baselines")
    chosen = [name.removeprefix("kvpress ") for name in best(got["rows"], 2)]
    return {"split": "dev", "n": len(examples), "seed": given.seed, "chosen": chosen, **got}


def compare(wire: Wire, given: argparse.Namespace) -> dict[str, Any]:
    """The comparison: what ``benchmarks/results/peers.json`` holds."""
    from random import Random

    from latentwire.data.files import lines_of
    from latentwire.data.rows import read_examples
    from latentwire.data.squad import shipped_valid
    from latentwire.evaluation.runner import evaluate

    asked = peers(given)
    # the questions that `latentwire eval --n` draws
    examples = Random(given.seed).sample(read_examples(shipped_valid()), given.n)
    own = evaluate(wire, examples, given.ratio, (16,), OWN, given.receivers, seed=given.seed, out=given.out / "own")
    lines = lines_of(given.out / "own" / "predictions.jsonl")
    said = [json.loads(line) for line in lines]
    got = measure(wire, examples, asked, given, said)
    rows = own_rows(own["rows"], examples, given.seed, said)
    return {
        "n": given.n,
        "seed": given.seed,
        **{key: own[key] for key in ("wire", "data", "mode", "slots", "versions", "device")},
        "peers": got["peers"],
        "baselines": [agreement(found, said, examples) for found in got["baselines"]],
        "rows": with_retention(rows + got["rows"]),
        "failed": got["failed"],
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument(
        "--env-dir", type=Path, help="folder for the peers' environments, outside the repository; 1 GB each"
    )
    parser.add_argument("--n", type=int, default=200, help="questions of the shipped validation set, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ratio", type=int, nargs="+", default=[4, 8, 16], help="tokens of the text per latent")
    parser.add_argument("--wire", default="sandbox", help="a directory, a hub id, or `sandbox`")
    parser.add_argument("--receivers", nargs="+", default=["llama", "qwen2"], metavar="NAME")
    parser.add_argument("--only", nargs="+", choices=("kvpress", "llmlingua", "llmlingua-2"), help="some of the peers")
    parser.add_argument("--presses", nargs="+", metavar="NAME", help=f"of kvpress; those of {CHOICE} if left out")
    parser.add_argument("--choose", type=int, metavar="N", help="only try all presses on N questions of dev")
    parser.add_argument("--data-dir", help="folder with training data (or LATENTWIRE_DATA), for --choose")
    parser.add_argument("--classifier", default=CLASSIFIER, help="of LLMLingua-2: a hub id or a directory")
    parser.add_argument("--threads", type=int, default=1, help="of a peer's process")
    parser.add_argument("--out", type=Path, default=Path("runs") / "peers", help="folder of items and answers")
    parser.add_argument("--results", type=Path, default=RESULTS / "peers.json", help="file of figures")
    parser.add_argument("--table", action="store_true", help="only write the table into docs/results.md")
    given = parser.parse_args(argv)
    if not given.table and given.env_dir is None:
        parser.error("--env-dir DIR is missing: where the peers' environments lie, or shall be made")
    given.out = given.out.resolve()
    given.env_dir = given.env_dir and given.env_dir.expanduser().resolve()
    return given


def main(argv: list[str] | None = None) -> int:
    """The command; exit code 1 if something could not be measured."""
    from latentwire.errors import UserError

    given = arguments(argv)
    if given.table:
        page = ROOT / "docs" / "results.md"
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    try:
        if given.env_dir.is_relative_to(ROOT):
            raise UserError(f"--env-dir {given.env_dir} is inside the repository; give a folder elsewhere")
        if not given.choose:
            peers(given)  # a missing choice should not wait for models to load
        from latentwire.commands.options import open_wire

        wire = open_wire(given.wire)
        found = choose(wire, given) if given.choose else compare(wire, given)
    except UserError as error:
        sys.exit(f"error: {error}")
    where = given.results.with_name(CHOICE) if given.choose else given.results
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"best: {', '.join(found['chosen'])}" if given.choose else table(found))
    return int(bool(found["failed"]))


if __name__ == "__main__":
    sys.exit(main())
