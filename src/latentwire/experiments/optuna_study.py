"""A search by optuna (Akiba et al. 2019, arXiv:1907.10902) with a storage that several machines may share.

A trial is a run like any other: named by its hash, in a folder of its own. A trial that was killed stands as running in
the storage; who has its folder, with nobody in it, goes on with it.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from latentwire.config import config_hash, encode
from latentwire.errors import UserError
from latentwire.experiments.grid import Planned, planned
from latentwire.experiments.processes import claimed
from latentwire.experiments.trial import JOB

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

    from latentwire.experiments.sweep import Sweep

DEPENDS = "depends"
"""Attribute of a study: hash of all that its scores depend on."""
SCALAR = (type(None), bool, int, float, str)


class Search:
    """The trials of a sweep. UserError: optuna is missing, the storage cannot be used, the study is of another sweep,
    or the space says nothing that can be suggested."""

    def __init__(self, sweep: Sweep) -> None:
        try:
            import optuna
        except ImportError:
            raise UserError(
                "this sweep searches with optuna, which is not installed; pip install 'latentwire[sweep]', or list "
                "values under grid"
            ) from None
        assert sweep.settings.optuna is not None
        self.optuna, self.sweep, self.settings = optuna, sweep, sweep.settings.optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.lock = threading.Lock()
        self.space = {key: _distribution(optuna, key, given) for key, given in self.settings.space.items()}
        parts = {"base": sweep.tree, "space": self.settings.space, "rank": encode(sweep.settings.rank)}
        depends = config_hash(parts | {"evaluate": encode(sweep.settings.evaluate)})
        storage = self.settings.storage or f"sqlite:///{(sweep.out / 'study.db').resolve()}"
        name = self.settings.study or f"sweep-{depends}"
        direction = "minimize" if sweep.settings.rank.metric == "nll" else "maximize"
        try:
            self.study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True, direction=direction)
            self.study.sampler = self.sampler(len(self.study.trials))
        except Exception as error:  # of a database's own library, whichever that is
            why = " ".join(str(error).split())[:200]
            raise UserError(f"optuna cannot use the storage {self.settings.storage or storage}: {why}") from None
        if self.study.user_attrs.setdefault(DEPENDS, depends) != depends:
            raise UserError(
                f"the study {name!r} is of another base, space, evaluation or rank; give another optuna.study"
            )
        self.study.set_user_attr(DEPENDS, depends)
        for trial in self.study.trials:
            self.know(self.run_of(trial))
        self.abandoned = [trial for trial in self.study.trials if self.is_abandoned(trial)]

    def sampler(self, begun: int) -> Any:
        """TPE; workers that search at once keep off what the others are trying (constant liar).

        The seed moves on with the trials there are, or a study that goes on would try its first values again; machines
        that share a storage would all try the same ones, and draw theirs.
        """
        seed = None if self.settings.storage else self.settings.seed + begun
        return self.optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def left(self) -> int:
        """Trials that this call has to do: those not begun yet, and those of this folder that were killed."""
        return max(0, self.settings.trials - len(self.study.trials)) + len(self.abandoned)

    def do(self, place: str | None) -> tuple[Planned | None, str | None]:
        """Go on with a trial that was killed, or do another; returns its run (None: others have begun the last one)
        and why it failed."""
        states = self.optuna.trial.TrialState
        with self.lock:
            trial = self.abandoned.pop() if self.abandoned else self.ask()
        if trial is None:
            return None, None
        run = self.run_of(trial)
        assert run is not None
        self.know(run)
        why = self.sweep.do(run, place, patient=True)
        if self.sweep.stopping:
            return run, why  # the trial stays as it is, to be gone on with
        line = None if why else self.sweep.line(run)
        value = line["score"]["value"] if line else None
        if value is not None:
            self.study.tell(trial.number, value, skip_if_finished=True)
        else:
            # a run that the collapse watch stopped says where not to look; one that failed says nothing
            state = states.PRUNED if line else states.FAIL
            self.study.tell(trial.number, state=state, skip_if_finished=True)
        return run, why

    def know(self, run: Planned | None) -> None:
        """Let the sweep show a trial's run."""
        with self.lock:
            if run is not None and run.name not in {one.name for one in self.sweep.runs}:
                self.sweep.runs.append(run)

    def ask(self) -> Trial | None:
        """Another trial with its values, unless all have been begun."""
        if len(self.study.get_trials(deepcopy=False)) >= self.settings.trials:
            return None
        return self.study.ask(self.space)

    def run_of(self, trial: Trial | FrozenTrial) -> Planned | None:
        """The run of a trial; None while another machine is still choosing its values."""
        if set(trial.params) != set(self.space):
            return None
        return planned(
            self.sweep.tree, {key: _value(self.settings.space[key], trial.params[key]) for key in self.space}
        )

    def is_abandoned(self, trial: FrozenTrial) -> bool:
        """Whether a trial was begun in this folder and nobody is at it."""
        run = self.run_of(trial)
        if run is None or trial.state.is_finished() or not (self.sweep.out / run.name / JOB).is_file():
            return False
        with claimed(self.sweep.out / run.name) as claim:
            return claim is not None


def _distribution(optuna: Any, key: str, given: Any) -> Any:
    """What optuna may suggest for a key."""
    if isinstance(given, list):
        return optuna.distributions.CategoricalDistribution([_label(value) for value in given])
    if not isinstance(given, dict) or not {"low", "high"} <= set(given) <= {"low", "high", "log", "step"}:
        raise UserError(f"optuna.space.{key} is a list of values or low and high, with log or step, not {given!r}")
    ends = [given["low"], given["high"]]
    whole = all(isinstance(end, int) for end in ends) and isinstance(given.get("step", 1), int)
    try:
        more = {"log": bool(given.get("log", False))}
        if whole:
            return optuna.distributions.IntDistribution(*ends, step=given.get("step", 1), **more)
        # YAML reads 1e-4 as a string
        step = None if given.get("step") is None else float(given["step"])
        return optuna.distributions.FloatDistribution(*map(float, ends), step=step, **more)
    except (TypeError, ValueError) as error:
        raise UserError(f"optuna.space.{key}: {' '.join(str(error).split())}") from None


def _label(value: Any) -> Any:
    """What stands for a value in the storage, which keeps numbers and strings only."""
    return value if isinstance(value, SCALAR) else json.dumps(value)


def _value(given: Any, suggested: Any) -> Any:
    """The value that a suggested one stands for."""
    if not isinstance(given, list):
        return suggested
    return next(value for value in given if _label(value) == suggested)
