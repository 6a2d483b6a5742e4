"""Optuna's side of a search: a study that mirrors the trials table, and the next setting.

Whatever its storage knew before, the study is made anew from the table: nothing is told twice, nothing is lost. The
n-th setting is drawn with randomness named by (sampler.seed, n), so a search that was killed goes on as it would have.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from tsdf_ray.randomness import seed_for
from tsdf_ray.scenario.search import Choice, Int, LogUniform, Parameter, SearchConfig, Uniform, applies
from tsdf_ray.store.trials import Param, Report, State, Trial
from tune.designs import design, grid_values

STUDY = "tsdf-ray"
"""Name of a search's study in its own storage."""
STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
FILES = {"sqlite": "optuna.db", "journal": "optuna.journal"}
GENERATION = NSGAIISampler._get_generation_key()
"""Where NSGA-II notes a trial's generation."""
PARENTS = "parents"
"""Our note on a trial of NSGA-II: the trials its generation descends from, by number (negative: of earlier searches).
They are chosen when a generation begins, and stay, whoever ends later."""


def distributions(search: SearchConfig) -> dict[str, BaseDistribution]:
    """Parameter -> Optuna's distribution; choices by the names of their options."""
    return {name: _distribution(parameter) for name, parameter in search.parameters.items()}


def _distribution(parameter: Parameter) -> BaseDistribution:
    match parameter:
        case Uniform():
            return FloatDistribution(parameter.low, _highest(parameter), step=parameter.step)
        case LogUniform():
            return FloatDistribution(parameter.low, parameter.high, log=True)
        case Int():
            return IntDistribution(parameter.low, _highest(parameter), log=parameter.log, step=parameter.step)
        case Choice():
            return CategoricalDistribution(tuple(parameter.options))


def _highest(parameter: Uniform | Int) -> Any:
    """The last value that steps reach: Optuna warns where that is not the upper end."""
    return parameter.high if parameter.step is None or parameter.step == 1 else grid_values(parameter)[-1]


def ordered(search: SearchConfig) -> Iterator[str]:
    """Parameters, each after those its condition depends on."""
    done: set[str] = set()
    while len(done) < len(search.parameters):
        for name, parameter in search.parameters.items():
            if name not in done and done.issuperset(parameter.when):
                done.add(name)
                yield name


def frozen(search: SearchConfig, trial: Trial) -> FrozenTrial:
    """A trial of the table as Optuna knows it. Raises ValueError when a value lies outside its distribution."""
    known, last = distributions(search), trial.last
    first = next(iter(search.objectives))
    values, seen = None, dict[int, float]()
    if len(search.objectives) == 1:
        # Of several objectives Optuna keeps none; its TPE fails on trials that have some.
        seen = {report.round: report.values[first] for report in trial.rounds if first in report.values}
    if trial.state == "complete" and last is not None:
        values = [last.values[name] for name in search.objectives]
    elif trial.state == "pruned" and seen:
        # As `Study.tell` of Optuna does.
        values = [seen[max(seen)]]
    made = create_trial(
        state=STATES[trial.state],
        values=values,
        params=trial.params,
        distributions={name: known[name] for name in trial.params},
        intermediate_values=seen,
        # In one order, whether told or read: the GP sampler knows constraints by their place.
        constraints=dict(sorted(last.violations.items())) if last and trial.state in {"complete", "pruned"} else {},
        user_attrs={"trial": trial.number, "point": trial.point},
        system_attrs={name: note for name, note in trial.notes.items() if name != PARENTS},
    )
    made._validate()
    return made


class _Unhurried(sqlite3.Connection):
    """Does not wait for the disk, as it would a dozen times per trial: the database is made anew from the table."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA synchronous=OFF")


def open_storage(search: SearchConfig, root: Path) -> BaseStorage:
    """The storage of a search's study, empty: a file that lies there is made anew from the table."""
    if search.storage == "memory":
        return InMemoryStorage()
    for left in root.glob(f"{FILES[search.storage]}*"):
        left.unlink()
    if search.storage == "sqlite":
        url = f"sqlite:///{root / FILES['sqlite']}"
        return RDBStorage(url, engine_kwargs={"connect_args": {"factory": _Unhurried}})
    return JournalStorage(JournalFileBackend(str(root / FILES["journal"])))


class Study:
    """Optuna's study of a search, kept equal to the trials table."""

    def __init__(
        self, search: SearchConfig, trials: list[Trial], storage: BaseStorage, earlier: list[FrozenTrial] | None = None
    ) -> None:
        self._search = search
        # A warning per trial of each parameter that has a condition would drown the board.
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(
            storage=storage, study_name=STUDY, directions=[o.direction for o in search.objectives.values()]
        )
        self._metric_names()
        # The samplers look at numbers alone, so trials of other searches simply come first.
        self.study.add_trials(earlier or [])
        self._offset = len(earlier or [])
        self.study.add_trials([frozen(search, trial) for trial in trials])
        # By number: looking a trial up would make the storage go through all of them.
        self._ids = [trial._trial_id for trial in self.study.get_trials(deepcopy=False)[self._offset :]]
        self._remember_parents(trials)

    def _metric_names(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.set_metric_names(list(self._search.objectives))

    def ask(self, number: int, fixed: Mapping[str, Param]) -> tuple[dict[str, Param], dict[str, Any]]:
        """The `number`-th setting: `fixed` where given (a start point), else as the sampler (or the design) has it.

        Returns parameters (those whose condition holds) and the sampler's own notes on the trial.
        """
        search = self._search
        points = len(search.start.points)
        given = dict(fixed)
        if search.sampler.kind in {"grid", "sobol"} and number >= points:
            given |= design(search, number - points)
        self.study.sampler = make_sampler(search, number)
        if given:
            self.study.enqueue_trial(given)
        trial = self.study.ask()
        assert trial.number == self._offset + number, "the study mirrors the table"
        self._ids.append(trial._trial_id)
        taken: dict[str, Param] = {}
        for name in ordered(search):
            parameter = search.parameters[name]
            if not applies(parameter, taken):
                continue
            match parameter:
                case Uniform():
                    taken[name] = trial.suggest_float(name, parameter.low, _highest(parameter), step=parameter.step)
                case LogUniform():
                    taken[name] = trial.suggest_float(name, parameter.low, parameter.high, log=True)
                case Int():
                    low, high = parameter.low, _highest(parameter)
                    taken[name] = trial.suggest_int(name, low, high, step=parameter.step, log=parameter.log)
                case Choice():
                    taken[name] = trial.suggest_categorical(name, list(parameter.options))
        trial.set_user_attr("trial", number)
        return taken, self._notes(trial._trial_id)

    def _notes(self, trial_id: int) -> dict[str, Any]:
        storage, sampler = self.study._storage, self.study.sampler
        if isinstance(sampler, NSGAIISampler):
            # Optuna gives a trial no generation when all its parameters are given: nobody would descend from it.
            sampler.get_parent_population(
                self.study, sampler.get_trial_generation(self.study, storage.get_trial(trial_id))
            )
        notes = dict(storage.get_trial_system_attrs(trial_id))
        notes.pop("fixed_params", None)
        if notes.get(GENERATION):
            ids = set(storage.get_study_system_attrs(self.study._study_id)[_parents_of(notes[GENERATION])])
            notes[PARENTS] = [t.number - self._offset for t in self.study.get_trials(False) if t._trial_id in ids]
        return notes

    def _remember_parents(self, trials: list[Trial]) -> None:
        everybody = self.study.get_trials(deepcopy=False)
        known = {trial.notes[GENERATION]: trial.notes[PARENTS] for trial in trials if PARENTS in trial.notes}
        for generation, numbers in known.items():
            # Earlier searches may have been changed since.
            places = [self._offset + number for number in numbers if self._offset + number >= 0]
            ids = [everybody[place]._trial_id for place in places]
            self.study._storage.set_study_system_attr(self.study._study_id, _parents_of(generation), ids)

    def report(self, number: int, report: Report) -> None:
        """A round of a running trial. Optuna keeps intermediate values where there is one objective."""
        first = next(iter(self._search.objectives))
        if len(self._search.objectives) == 1 and first in report.values:
            self._live(number).report(report.values[first], report.round)

    def tell(self, number: int, state: State, last: Report | None) -> None:
        """The end of a running trial."""
        trial = self._live(number)
        if last is not None and state in {"complete", "pruned"}:
            for name, violation in sorted(last.violations.items()):
                trial.set_constraint(name, violation)
        values = None
        if state == "complete":
            assert last is not None, "a complete trial has played its rounds"
            values = [last.values[name] for name in self._search.objectives]
        self.study.tell(trial, values, state=STATES[state])

    def _live(self, number: int) -> optuna.trial.Trial:
        return optuna.trial.Trial(self.study, self._ids[number])


def _parents_of(generation: int) -> str:
    """Where NSGA-II keeps the parents of a generation, by id."""
    return f"{NSGAIISampler._get_parent_cache_key_prefix()}{generation}"


def make_sampler(search: SearchConfig, number: int) -> BaseSampler:
    """Optuna's sampler for the `number`-th setting. What a design fixes needs none: random serves."""
    config = search.sampler
    seed = seed_for(config.seed, "search", number) % 2**32
    several = search.parallel != 1
    makers: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=seed, n_startup_trials=config.startup, constant_liar=several),
        "motpe": lambda: TPESampler(seed=seed, n_startup_trials=config.startup, constant_liar=several),
        "nsga2": lambda: NSGAIISampler(seed=seed, population_size=config.population),
        "gp": lambda: GPSampler(seed=seed, n_startup_trials=config.startup),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return makers.get(config.kind, lambda: RandomSampler(seed=seed))()
