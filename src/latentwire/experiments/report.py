"""``report``: one HTML page of one or several runs, for a person, a mail, or an attachment to an issue.

The page is a single file without script, loads nothing, and says so itself (its content policy allows neither). What a
run does not have is not on it: no empty heading, no placeholder. Whatever comes from a run is escaped by the template,
and every figure of a table carries the number as the run's file has it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentwire.data.progress import progress
from latentwire.data.rows import read_examples
from latentwire.data.squad import shipped_valid
from latentwire.errors import UserError
from latentwire.experiments import evaluated, trained
from latentwire.experiments.examples import Shown, extremes
from latentwire.experiments.figures import COLOURS, INK, Figure, Series, Style, draw, missing
from latentwire.experiments.runs import Evaluation, Training, flat, read_runs
from latentwire.types import Example

HERE = Path(__file__).parent


def report(runs: Sequence[Path], out: Path, data: Path | None = None) -> list[str]:
    """Write the page of ``runs`` to ``out``; returns the names of the runs that are on it.

    runs: folders of ``latentwire eval`` or ``latentwire train``, or results files. data: the questions that were asked,
    to show them and their contexts beside the answers; those that are shipped by default, as in an evaluation.
    UserError: what :func:`read_runs` refuses, ``out`` is a folder, or the extra ``report`` is not installed.
    """
    if out.is_dir():
        raise UserError(
            f"{out} is a folder; give the name of the HTML file to write, for example {out / 'report.html'}"
        )
    found = read_runs(runs)
    answered = [run for run in found if isinstance(run, Evaluation) and run.predictions]
    asked = read_examples(data or shipped_valid()) if answered else []
    html = render(found, {example.id: example for example in asked})
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}")
    # half of a surrogate pair, which a small model may well say, is no character that a file could hold
    part.write_bytes(html.encode("utf-8", errors="replace"))
    os.replace(part, out)
    return [run.name for run in found]


def render(runs: Sequence[Evaluation | Training], questions: Mapping[str, Example] | None = None) -> str:
    """The page as a string. questions: by id, those that may have been asked."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise missing("jinja2") from None
    from latentwire import __version__

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    evaluations = [run for run in runs if isinstance(run, Evaluation)]
    trainings = [run for run in runs if isinstance(run, Training)]
    # apart from the drawing: answers may be many, and have a bar of their own
    examples = {run.name: extremes(run.predictions, questions or {}) for run in evaluations if run.predictions}
    parts = []
    with progress("drawing", len(runs)) as show:
        for number, run in enumerate(runs):
            show(number, run.name)
            part = (
                _evaluation(run, *examples.get(run.name, ([], []))) if isinstance(run, Evaluation) else _training(run)
            )
            parts.append({"name": run.name, "anchor": f"run-{number + 1}", **part})
    page = environment.get_template("report.html").render(
        css=(HERE / "report.css").read_text(encoding="utf-8"),
        version=__version__,
        parts=parts,
        compared=compared(evaluations),
        next=next,
        numbers=itertools.count(1),
        curves=[figure] if (figure := losses_aside(trainings)) else [],
    )
    return page.lstrip()  # what stands before the document's type is of the template's own macros


def _evaluation(run: Evaluation, worst: list[Shown], best: list[Shown]) -> dict[str, Any]:
    sizes = sorted({row["n"] for row in run.rows if row.get("n") is not None})
    kinds = evaluated.kinds(run)
    return {
        "kind": "evaluation",
        "lead": _lead(run, sizes),
        "tiles": evaluated.tiles(run),
        "tables": evaluated.tables(run),
        "figures": evaluated.figures(run),
        "kinds": kinds,
        "kind_names": list(dict.fromkeys(name for row in kinds for name in row["f1"])),
        "examples": [(title, shown) for title, shown in (("worst", worst), ("best", best)) if shown],
        "receivers": run.receivers,
        "facts": evaluated.facts(run),
    }


def _lead(run: Evaluation, sizes: list[int]) -> list[str]:
    """A line of what was measured: questions, mode, slots, seed."""
    per = run.results.get("slots")
    words = [f"{'–'.join(f'{n:,}' for n in dict.fromkeys((sizes[0], sizes[-1])))} questions"] if sizes else []
    if "mode" in run.results:
        words.append(f"{run.results['mode']} mode")
    if per is not None:
        words.append("K/V for half the text" if per == "half" else f"{per} K/V a latent")
    if "seed" in run.results:
        words.append(f"seed {run.results['seed']}")
    return words


def _training(run: Training) -> dict[str, Any]:
    return {
        "kind": "training",
        "lead": [],
        "facts": trained.facts(run),
        "figures": trained.figures(run),
        "events": trained.events(run),
        "favourites": trained.favourites(run),
        "begun": [dict(flat(line)) for line in run.begun],
        "config": run.config,
    }


def compared(runs: Sequence[Evaluation]) -> dict[str, Any] | None:
    """Latents of several evaluations side by side; None where there is one. ``same``: whether all of them say that they
    asked the same questions."""
    if len(runs) < 2:
        return None
    f1, kept = (next(c for c in evaluated.COLUMNS if c.key == key) for key in ("f1", "retention"))
    cells: dict[tuple, list[Any]] = {}
    for place, run in enumerate(runs):
        for row in run.rows:
            if row["condition"] in ("text", "latents") and row.get("f1") is not None:
                key = (row["receiver"], row["condition"], row["ratio"], row["bits"])
                own = cells.setdefault(key, [None] * len(runs))
                own[place] = (evaluated.cell(row, f1), evaluated.cell(row, kept))
    shared = [(key, own) for key, own in cells.items() if sum(cell is not None for cell in own) > 1]
    shared.sort(key=lambda item: (item[0][0], item[0][1] != "text", item[0][2] or 0, -(item[0][3] or 0)))
    if not shared:
        return None
    asked = [run.results.get("data") for run in runs]
    return {
        "names": [run.name for run in runs],
        "rows": shared,
        "same": all(one is not None and one == asked[0] for one in asked),
    }


def losses_aside(runs: Sequence[Training]) -> Figure | None:
    """The loss on the slice kept aside of several trainings in one figure; None where there is one."""
    if len(runs) < 2:
        return None
    series = []
    for number, run in enumerate(runs):
        lines = [line for line in run.of("dev") if line.get("answer") is not None]
        style = Style(COLOURS[number % 8] if number < 8 else INK, "o")
        series.append(Series(run.name, style, [line["step"] for line in lines], [line["answer"] for line in lines]))
    about = "Loss of answers on the slice kept aside, by step"
    return draw("Losses aside", about, series, "step", "loss", wide_y=True)
