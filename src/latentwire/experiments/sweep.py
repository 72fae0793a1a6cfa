"""``sweep``: every run of a file in a process of its own, trained and asked, kept, compared.

A folder of a sweep holds ``RUN/`` for each run (``run`` as :func:`latentwire.training.run.train` leaves it, ``eval``,
``log.txt``, ``result.json``), ``metrics_history.jsonl`` with a line for every run that was ever finished there, and
``results.json``: the runs of the file as it is now, ranked and judged.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from latentwire.config import encode
from latentwire.data.progress import progress
from latentwire.data.rows import data_dir
from latentwire.errors import UserError
from latentwire.evaluation.table import share
from latentwire.experiments.cost import cost
from latentwire.experiments.grid import Planned, base_tree, plan, planned, told
from latentwire.experiments.history import History, Line, better, line_of
from latentwire.experiments.processes import claimed, environment, reason, run_all, visible_gpus
from latentwire.experiments.settings import SweepConfig, read
from latentwire.experiments.trial import JOB, RESULT, write
from latentwire.experiments.verdicts import verdicts, worst

RESULTS = "results.json"
ELSEWHERE = "is being run by another process"
STEP = re.compile(r"^step (\d+)/(\d+)", re.MULTILINE)


class Sweep:
    """A sweep and its folder ``out``. data: the folder of training data, where it is given. workers: processes side by
    side."""

    def __init__(
        self, settings: SweepConfig, tree: dict[str, Any], out: Path, data: str | None = None, workers: int = 1
    ) -> None:
        self.settings, self.tree, self.out, self.data, self.workers = settings, tree, out, data, workers
        self.runs = plan(settings, tree)
        self.base = planned(tree, {}) if settings.baseline else None
        configs = [run.config for run in self.runs] or [planned(tree, {}).config]
        on_cpu = all(config.device == "cpu" for config in configs)
        self.places = [] if on_cpu else visible_gpus()
        self.history = History(out)
        self.failed: dict[str, str] = {}
        self.running: dict[str, subprocess.Popen] = {}
        self.stopping = False
        self.known: dict[str, Line] = {}

    # -- one run ----------------------------------------------------------------------------------------------------

    def line(self, run: Planned) -> Line | None:
        """A run's line, if it is finished with this evaluation."""
        path = self.out / run.name / RESULT
        if run.name not in self.known and path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["evaluation"] == self.settings.evaluate.hash:
                # another sweep in this folder may have come to the same config by other overrides
                result |= {"hash": run.name, "overrides": run.overrides}
                self.known[run.name] = line_of(result, self.settings.rank, path.parent)
        return self.known.get(run.name)

    def do(self, run: Planned, place: str | None, patient: bool = False) -> str | None:
        """Run it in a process, unless it is finished; returns why there is no result. patient: wait for another
        process that has it."""
        folder = self.out / run.name
        while True:
            with claimed(folder) as claim:
                if claim is not None:
                    return None if self.line(run) else self.process(run, place, claim)
            if not patient:
                return ELSEWHERE
            time.sleep(1.0)

    def process(self, run: Planned, place: str | None, claim: int) -> str | None:
        """The process of a claimed run, until its end; returns why it failed."""
        if self.stopping:
            return "not begun: the sweep was stopped"
        folder = self.out / run.name
        cache = run.config.corpus.cache or str(self.out.resolve() / "cache")
        config = replace(run.config, corpus=replace(run.config.corpus, cache=cache))
        asked = encode(self.settings.evaluate)
        write(folder / JOB, {"config": encode(config), "evaluate": asked, "data_dir": self.data})
        command = [sys.executable, "-m", "latentwire.experiments.trial", str(folder)]
        with (folder / "log.txt").open("w") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment(place, self.workers), pass_fds=(claim,)
            )
            self.running[run.name] = process
            try:
                code = process.wait()
            finally:
                self.running.pop(run.name, None)
        return None if code == 0 else reason(folder / "log.txt", code).removeprefix("error: ")

    def over(self, run: Planned, why: str | None) -> Line | None:
        """Keep what came of a run: a line of the history, and ``results.json`` brought up to date."""
        if why:
            self.failed[run.name] = why
        else:
            self.failed.pop(run.name, None)
        line = None if why else self.line(run)
        if line is not None:
            self.history.add(line)
        self.results()
        return line

    # -- all of them ------------------------------------------------------------------------------------------------

    def go(self) -> dict[str, Any]:
        """Run what is not finished; returns what ``results.json`` holds."""
        self.find_data()
        self.out.mkdir(parents=True, exist_ok=True)
        for run in self.runs:
            if line := self.line(run):
                self.history.add(line)  # one whose sweep was killed before it could
        todo: list[Planned | None] = [run for run in self.runs if self.line(run) is None]
        search = None
        if self.settings.optuna:
            from latentwire.experiments.optuna_study import Search

            search = Search(self)
            todo += [None] * search.left()  # what such a run is, optuna says when there is room for it
        done = 0

        def one(item: Planned | None, place: str | None) -> tuple[Planned | None, str | None]:
            if item is not None:
                return item, self.do(item, place)
            assert search is not None
            return search.do(place)

        with progress("runs", len(todo)) as show:

            def look() -> None:
                show(done + sum(map(self.share, list(self.running))), f"{done}/{len(todo)}")

            def after(item: Planned | None, found: tuple[Planned | None, str | None]) -> None:
                nonlocal done
                done += 1
                run, why = found
                if run is not None:
                    line = self.over(run, why)
                    say = why or (_said(line) if line else "")
                    print(f"{done}/{len(todo)} {run.name} {told(run.overrides)}: {say}", file=sys.stderr, flush=True)

            run_all(todo, self.workers, self.places, one, after, look, self.stop)
        return self.results()

    def find_data(self) -> None:
        """UserError where there is no data at all: said once, and not by every run."""
        asked = self.settings.evaluate.questions
        if asked not in ("aside", "valid") and not Path(asked).is_file():
            raise UserError(f"evaluate.questions is aside, valid or a file of rows, and there is no file {asked}")
        corpora = [run.config.corpus for run in self.runs] or [planned(self.tree, {}).config.corpus]
        if any(not corpus.text and not corpus.questions for corpus in corpora):
            data_dir(self.data)

    def stop(self) -> None:
        """End what runs; each goes on from its last checkpoint when the sweep is called again."""
        self.stopping = True
        for process in list(self.running.values()):
            process.terminate()

    def share(self, name: str) -> float:
        """How far a run has come, from 0 to 1, by the last step in its log."""
        log = self.out / name / "log.txt"
        found = STEP.findall(log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else []
        return min(1.0, int(found[-1][0]) / max(1, int(found[-1][1]))) if found else 0.0

    def results(self) -> dict[str, Any]:
        """The sweep's runs, the best first, with their verdicts; also written to ``results.json``."""
        lines = {run.name: line for run in self.runs if (line := self.line(run))}
        base = lines.get(self.base.name) if self.base else None
        runs = []
        for name, line in sorted(lines.items(), key=lambda item: better(item[1])):
            by = (
                verdicts(line, base, self.settings.rank.condition)
                if base and self.base and name != self.base.name
                else {}
            )
            runs.append({**line, "verdict": worst(list(by.values())) if by else None, "verdicts": by})
        found = {
            "rank": encode(self.settings.rank),
            "evaluate": encode(self.settings.evaluate),
            "baseline": self.base.name if self.base else None,
            "runs": runs,
            "failed": {name: why for name, why in self.failed.items() if why != ELSEWHERE},
            "elsewhere": [name for name, why in self.failed.items() if why == ELSEWHERE],
        }
        write(self.out / RESULTS, found)
        return found

    # -- before it runs ---------------------------------------------------------------------------------------------

    def words(self) -> str:
        """How many runs, and what they will cost."""
        trials = self.settings.optuna.trials if self.settings.optuna else 0
        shown = [planned(self.tree, {})] if trials else []
        price = cost([*self.runs, *shown * trials])
        measured = [line["seconds"]["train"] for line in self.history.lines()]
        return price.words(len(self.runs) + trials, self.workers, measured)

    def resolved(self) -> str:
        """Every config as it would run, as YAML documents; of a search, its base and its space."""
        texts = [
            f"--- # {run.name}: {told(run.overrides)}\n{yaml.safe_dump(encode(run.config), sort_keys=False)}"
            for run in self.runs or [planned(self.tree, {})]
        ]
        if self.settings.optuna:
            space = yaml.safe_dump(self.settings.optuna.space, sort_keys=False)
            texts.append(f"--- # {self.settings.optuna.trials} trials that optuna chooses in\n{space}")
        return "".join(texts)


def sweep(
    path: Path,
    typed: Sequence[str] = (),
    out: Path | None = None,
    data: str | None = None,
    workers: int = 1,
    smoke: Sequence[str] = (),
    n: int | None = None,
) -> Sweep:
    """The sweep of a file, checked and ready to go. smoke: overrides that make its runs tiny. n: questions at most.

    UserError: the file, or the config of any of its runs, cannot work.
    """
    settings, rest = read(path, typed)
    if n is not None:
        settings.evaluate.n = min(settings.evaluate.n or n, n)
    if workers < 1:
        raise UserError(f"--workers is a number from 1, not {workers}")
    tree = base_tree(settings, path.parent, rest, smoke)
    return Sweep(settings, tree, out or Path("runs") / f"sweep-{path.stem}", data, workers)


def _said(line: Line) -> str:
    score = line["score"]
    if line["stopped"]:
        return line["stopped"]
    if score["value"] is None:
        return "finished, without a score"
    between = f" ({'-'.join(share(end) for end in score['interval'])})" if score["interval"] else ""
    return f"{score['metric']} {score['value']:.3f}{between}"
