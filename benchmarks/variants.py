"""Every adapter, every objective and some settings, one at a time: ``python benchmarks/variants.py``.

Under the budget of methods.py, each run differs in one thing from encoder ``lm`` with keys and values
(``kv-column``) or, for objectives that compare slots with the receiver's embeddings, with ``soft-tokens``. These two
stand in ``methods.json``, measured with the same steps, data and questions, so it has to be there, and of this budget.
Adapters and objectives are found through the registries: one that is added later takes part. Settings are in
``SETTINGS``.

    python benchmarks/variants.py --data-dir DIR --steps 600 --windows 120000 --made 60000
    python benchmarks/variants.py --smoke --only adapter-film objective-rms      (a CPU, no data, a minute)
    python benchmarks/variants.py --table       (docs/methods.md from benchmarks/results/variants.json)
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from methods import budget, selected
from methods_config import READERS, ROOT, config, method, smoke
from methods_table import scores
from side_by_side import BUDGET, Job, command, finish, measured, with_retention

RESULTS = ROOT / "benchmarks" / "results" / "variants.json"
PAGE = ROOT / "docs" / "methods.md"
BLOCK = re.compile(r"(<!-- variants:begin -->\n).*?(<!-- variants:end -->)", re.DOTALL)
KV, SOFT = "kv-column", "soft-tokens"
SETTINGS: dict[str, list[str]] = {
    "encoder.fixed": ["wire.encoder.fixed=true"],
    "encoder.lora": ["wire.encoder.lora=16"],
    "encoder.frozen_layers": ["wire.encoder.frozen_layers={half}"],
    "encoder.lexicons": ["wire.encoder.lexicons=['{qwen2}']"],
    "encoder.receivers": ["wire.encoder.receivers=[llama, qwen2]"],
    "links.lora": ["wire.links.llama.lora={layers: 4}", "wire.links.qwen2.lora={layers: 4}"],
    "kl.taught of 1": ["objectives.kl.taught=1.0"],
    "hidden-states.taught of 0.5": ["objectives.states={type: hidden-states, taught: 0.5}"],
    "hidden-states.at ten depths": [
        "objectives.states={type: hidden-states, at: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}"
    ],
}
"""By what the table calls it, the overrides of a run; those of ``encoder.receivers`` are of the encoder ``byte``."""


def plan() -> dict[str, tuple[str, str, str]]:
    """By run name, what is put in (``adapter``, ``objective``, ``setting``), its type, and the injection beside it."""
    from latentwire.adapters import AdapterConfig
    from latentwire.objectives import ObjectiveConfig

    known, usual = ObjectiveConfig.known(), usual_objectives()
    adapters = [name for name in sorted(AdapterConfig.known()) if name != "mlp"]
    objectives = [name for name in sorted(known) if name not in usual]
    runs = {f"adapter-{name}": ("adapter", name, KV) for name in adapters}
    for name in objectives:
        # slots beside embeddings: keys and values that a link makes are no such thing
        soft = known[name]().build().role == "passage"
        runs[f"objective-{name}"] = ("objective", name, SOFT if soft else KV)
    for name in SETTINGS:
        runs[f"setting-{re.sub('[ .]+', '-', name)}"] = ("setting", name, KV)
    return runs


def usual_objectives() -> list[str]:
    """Those that every run has."""
    from latentwire.config import read_yaml

    return list(read_yaml(ROOT / "configs" / "sandbox" / "wire.yaml")["objectives"])


def tree_of(kind: str, name: str, injection: str, given: argparse.Namespace) -> dict[str, Any]:
    """The training config of one run."""
    from latentwire.adapters import AdapterConfig
    from latentwire.config import override

    tree = config("byte" if name == "encoder.receivers" else "lm", injection, given)
    if kind == "setting":
        half = "1" if given.smoke else "5"
        override(
            tree, [item.replace("{qwen2}", given.readers["qwen2"]).replace("{half}", half) for item in SETTINGS[name]]
        )
    elif kind == "objective":
        tree["objectives"][name] = {"type": name}
    else:
        for link in tree["wire"]["links"].values():
            link["adapter"] = method(AdapterConfig, name, given)
    return tree


def jobs(given: argparse.Namespace) -> list[tuple[Path, Job]]:
    """A folder for each run, named by all that its figures depend on, and what is to be done in it."""
    from latentwire.config import config_hash

    todo: list[tuple[Path, Job]] = []
    for name, (kind, of, injection) in plan().items():
        facts = {"name": name, "kind": kind, "type": of, "injection": injection}
        job: Job = {"name": name, "facts": facts, "config": tree_of(kind, of, injection, given)}
        job |= {"n": given.n, "data_dir": given.data_dir, "references": False}
        todo.append((given.out / f"{name}-{config_hash({**job, 'data_dir': None})}", job))
    return todo


def gathered(todo: list[tuple[Path, Job]], failed: dict[str, str], given: argparse.Namespace) -> dict[str, Any]:
    """What ``variants.json`` holds: all finished runs of this budget, with the retention that ``methods.json``'s full
    text and no context give."""
    found = measured(todo, given, budget(given))
    references = methods(given.results)["references"]
    with_retention(found["runs"], references)
    return {"budget": budget(given), **found, "references": references, "failed": failed}


def methods(beside: Path) -> dict[str, Any]:
    """``methods.json`` in the same folder, or nothing."""
    path = beside.with_name("methods.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"runs": [], "references": []}


def table(found: dict[str, Any], bases: list[dict[str, Any]]) -> str:
    """Markdown: for each injection the run that has nothing more, and then what was put in, the best first."""
    rows = [*bases, *found["runs"]]
    names = list(dict.fromkeys(row["receiver"] for run in rows for row in run["rows"]))
    head = [
        "put in",
        "beside",
        "parameters",
        *(cell for name in names for cell in (f"`{name}` F1 (95 %)", "retention")),
    ]
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for injection in dict.fromkeys(run["injection"] for run in rows):
        for own in (bases, sorted(found["runs"], key=lambda run: -sum(row["f1"] for row in run["rows"]))):
            for run in own:
                if run["injection"] != injection:
                    continue
                of = {row["receiver"]: row for row in run["rows"]}
                what = f"{run['kind']} `{run['type']}`" if "kind" in run else "nothing"
                size = f"{sum(run['parameters'].values()) / 1e6:.1f} M"
                lines.append([what, f"`{injection}`", size, *(cell for name in names for cell in scores(of.get(name)))])
    for name, why in found["failed"].items():
        kind, of, _ = plan()[name]
        lines.append([f"{kind} `{of}`", f"failed: {why}", *[""] * (len(head) - 2)])
    asked = " or ".join(f"{n:,}" for n in found["n"]) or "no"
    note = f"{asked} questions kept aside, 4×, {found['budget']['steps']:,} steps each, seed {found['seed']}, "
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}{', '.join(found['device'])}.\n"


def bases_of(found: dict[str, Any], beside: Path) -> list[dict[str, Any]]:
    """The runs of ``methods.json`` that have nothing more, if they are of the same budget."""
    there = methods(beside)
    alike = {key: value for key, value in there.get("budget", {}).items() if key != "parallel"} == {
        key: value for key, value in found["budget"].items() if key != "parallel"
    }
    return [run for run in there["runs"] if alike and run["encoder"] == "lm" and run["injection"] in (KV, SOFT)]


def fill(page: str, results: Path = RESULTS) -> str:
    """The page with its table made anew."""
    text = "Not measured yet.\n"
    if results.is_file():
        found = json.loads(results.read_text(encoding="utf-8"))
        text = table(found, bases_of(found, results))
    return BLOCK.sub(lambda match: match[1] + text + match[2], page)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = command(__doc__, "variants", 1000)
    for option, settings in BUDGET.items():
        parser.add_argument(option, **settings)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="single runs")
    given = parser.parse_args(argv)
    sizes = {"windows": given.windows, "made": given.made}
    given.corpus, given.out = {key: size for key, size in sizes.items() if size is not None}, given.out.resolve()
    given.readers = READERS | dict(item.split("=", 1) for item in given.reader)
    given.results = given.results or (given.out / "variants.json" if given.smoke else RESULTS)
    given.steps = given.steps or (None if given.minutes or given.smoke else 1500)
    given.set = []
    return given


def main(argv: list[str] | None = None) -> int:
    """The command; exit code 1 if a run failed."""
    from latentwire.errors import UserError

    given = arguments(argv)
    if given.table:
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    try:
        if given.smoke:
            smoke(given)
        todo = jobs(given)
        chosen = selected(todo, given.only)
    except UserError as error:
        sys.exit(f"error: {error}")

    return finish(
        given,
        chosen,
        budget(given),
        lambda failed: gathered(todo, failed, given),
        lambda found: table(found, bases_of(found, given.results)),
    )


if __name__ == "__main__":
    sys.exit(main())
