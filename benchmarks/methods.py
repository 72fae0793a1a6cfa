"""Train every method under one budget and measure each on the slice kept aside: ``python benchmarks/methods.py``.

Every registered encoder is trained with soft tokens and with a K/V prefix, and every injection with the encoder ``lm``,
at 4 text tokens per latent, on the same data for the same number of steps (or minutes). Methods are found through the
registries: one that is added later takes part. ``side_by_side.py`` says how the runs are made.

    python benchmarks/methods.py --data-dir DIR --steps 1500 --parallel 4
    python benchmarks/methods.py --smoke --only lm+kv-prefix byte+soft-tokens    (a CPU, no data, minutes)
    python benchmarks/methods.py --table            (the table of docs/methods.md from benchmarks/results/methods.json)

What a method must be told beside its type is in ``methods_config.py`` (``NEEDS``), or is given by ``--set``, for
example a sentence encoder's directory: ``--set sentence.init=DIR sentence-tokens.init=DIR aligned.anchor=DIR``. Without
it, these are reported as failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from methods_config import RATIO, READERS, ROOT, config, plan, smoke
from methods_table import fill, table
from side_by_side import BUDGET, Job, command, finish, measured

RESULTS = ROOT / "benchmarks" / "results"


def selected(todo: list[tuple[Path, dict[str, Any]]], only: list[str]) -> list[tuple[Path, dict[str, Any]]]:
    """Those of the runs that ``--only`` names, or all. UserError: there is no such run."""
    from latentwire.errors import UserError

    names = [job["name"] for _, job in todo]
    if unknown := [name for name in only if name not in names]:
        raise UserError(f"there is no run {unknown[0]!r}; there are: {', '.join(names)}")
    return [run for name, run in zip(names, todo, strict=True) if not only or name in only]


def jobs(given: argparse.Namespace) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder for each run, named by all that its figures depend on, and what is to be done in it."""
    from latentwire.config import config_hash

    for number, (encoder, injection) in enumerate(plan()):
        facts = {"encoder": encoder, "injection": injection}
        job: Job = {"name": f"{encoder}+{injection}", "facts": facts, "config": config(encoder, injection, given)}
        job |= {"n": given.n, "data_dir": given.data_dir, "references": number == 0}
        name = config_hash({**job, "data_dir": None})
        yield given.out / f"{encoder}+{injection}-{name}", job


def gathered(todo: list[tuple[Path, dict]], failed: dict[str, str], given: argparse.Namespace) -> dict[str, Any]:
    """What ``methods.json`` holds: all finished runs of this budget, also those that ``--only`` leaves out now."""
    return {"budget": budget(given), "ratio": RATIO, **measured(todo, given, budget(given)), "failed": failed}


def budget(given: argparse.Namespace) -> dict[str, Any]:
    """What runs that stand in one file have in common."""
    return {key: getattr(given, key) for key in ("steps", "minutes", "parallel", "passages")} | given.corpus


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = command(__doc__, "methods", 500)
    for option, settings in BUDGET.items():
        parser.add_argument(option, **settings)
    parser.add_argument("--only", nargs="*", default=[], metavar="ENCODER+INJECTION")
    parser.add_argument("--set", nargs="*", default=[], metavar="METHOD.KEY=VALUE", help="what a method must be told")
    given = parser.parse_args(argv)
    sizes = {"windows": given.windows, "made": given.made}
    given.corpus, given.out = {key: size for key, size in sizes.items() if size is not None}, given.out.resolve()
    given.readers = READERS | dict(item.split("=", 1) for item in given.reader)
    given.results = given.results or (given.out if given.smoke else RESULTS) / "methods.json"
    given.steps = given.steps or (None if given.minutes else 1500) if not given.smoke else given.steps
    return given


def main(argv: list[str] | None = None) -> int:
    """The command; exit code 1 if a run failed."""
    from latentwire.errors import UserError

    given = arguments(argv)
    if given.table:
        page = ROOT / "docs" / "methods.md"
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    try:
        if given.smoke:
            smoke(given)
        todo = list(jobs(given))
        chosen = selected(todo, given.only)
    except UserError as error:
        sys.exit(f"error: {error}")

    return finish(given, chosen, budget(given), lambda failed: gathered(todo, failed, given), table)


if __name__ == "__main__":
    sys.exit(main())
