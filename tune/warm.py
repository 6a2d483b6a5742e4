"""What earlier searches know: finished trials of search directories and of Optuna storages, for the sampler to learn
from. They are not trials of this search."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from tsdf_ray.errors import UserError
from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search import Constraint, SearchConfig, applies
from tsdf_ray.store.rundir import read_info
from tsdf_ray.store.trials import TrialsTable
from tune.analysis import constrained_value, violation
from tune.study import GENERATION, distributions, frozen, ordered


def earlier_trials(search: SearchConfig) -> list[FrozenTrial]:
    """Trials of `start.runs` and `start.storage` that fit: same parameters, in range, same objectives and constraints
    (of runs, bounds may differ).

    Raises UserError when a source cannot be read, has others, or holds nothing that fits.
    """
    found: list[FrozenTrial] = []
    for folder in search.start.runs:
        found += _from_run(search, Path(folder))
    if search.start.storage is not None:
        found += _from_storage(search, search.start.storage, search.start.study)
    return found


def _from_run(search: SearchConfig, root: Path) -> list[FrozenTrial]:
    where = f"search.start.runs: {root}"
    if read_info(root).get("kind") != "search":
        raise UserError(f"{where}: is not a search; give a folder that `tsdf-ray tune` made")
    other = Scenario.load(root / "scenario.yaml").search
    if other is None or other.objectives != search.objectives:
        raise UserError(f"{where}: has other objectives; a sampler cannot learn from them")
    trials = []
    for trial in TrialsTable(root / "trials.jsonl").of("complete"):
        made = frozen(other, trial)
        assert trial.last is not None, "a complete trial has reported"
        trials.append(_with_constraints(made, _rebound(search, other, trial.last.violations, where)))
    return _fitting(search, trials, where, list(other.objectives))


def _rebound(search: SearchConfig, other: SearchConfig, known: dict[str, float], where: str) -> dict[str, float]:
    """How far a trial of another search violates our constraints."""
    found = {}
    for name, constraint in search.constraints.items():
        theirs = other.constraints.get(name)
        if theirs is None or _measured(theirs) != _measured(constraint) or name not in known:
            raise UserError(f"{where}: did not measure the constraint {name!r} as it is here")
        found[name] = violation(constraint, constrained_value(theirs, known[name]))
    return found


def _measured(constraint: Constraint) -> dict[str, object]:
    """All but the bound itself: whether there is a least or a greatest value says what the worst is."""
    return constraint.model_dump(exclude={"at_least", "at_most"}) | {"least": constraint.at_least is not None}


def _with_constraints(trial: FrozenTrial, constraints: dict[str, float]) -> FrozenTrial:
    return create_trial(
        values=list(trial.values), params=trial.params, distributions=trial.distributions, constraints=constraints
    )


def _from_storage(search: SearchConfig, url: str, name: str | None) -> list[FrozenTrial]:
    where = f"search.start.storage: {url}"
    try:
        storage = open_url(url)
        names = [summary.study_name for summary in optuna.get_all_study_summaries(storage, include_best_trial=False)]
    except Exception as error:  # storages raise what their back ends raise
        raise UserError(f"{where}: cannot be read ({error})") from error
    if name is None and len(names) != 1:
        raise UserError(f"{where}: holds {len(names)} studies ({', '.join(names)}); name one in search.start.study")
    wanted = name or names[0]
    if wanted not in names:
        raise UserError(f"search.start.study: no study {wanted!r} in {url}; there are: {', '.join(names)}")
    study = optuna.load_study(study_name=wanted, storage=storage)
    if [str(d.name).lower() for d in study.directions] != list(_directions(search).values()):
        raise UserError(f"{where}: study {wanted!r} has other objectives; a sampler cannot learn from them")
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    return _fitting(search, complete, where, _order(study, search))


def open_url(url: str) -> BaseStorage:
    """An Optuna storage that exists: a database's URL, or `journal:FILE`. Raises UserError when its file does not."""
    for prefix in ("journal:", "sqlite:///"):
        if url.startswith(prefix) and not Path(url.removeprefix(prefix)).is_file():
            raise UserError(f"no such file: {url.removeprefix(prefix)}")
    if url.startswith("journal:"):
        return JournalStorage(JournalFileBackend(url.removeprefix("journal:")))
    return RDBStorage(url)


def _order(study: Study, search: SearchConfig) -> list[str]:
    """A study's own names of its objectives, or else ours: then only number and directions speak."""
    names = study.metric_names
    return list(names) if names is not None and set(names) == set(search.objectives) else list(search.objectives)


def _fitting(search: SearchConfig, trials: list[FrozenTrial], where: str, objectives: list[str]) -> list[FrozenTrial]:
    known, fitting = distributions(search), []
    for trial in trials:
        wanted: dict[str, object] = {}
        for name in ordered(search):
            if applies(search.parameters[name], wanted) and name in trial.params:
                wanted[name] = trial.params[name]
        expected = {name for name in search.parameters if applies(search.parameters[name], wanted)}
        inside = set(trial.params) == set(wanted) == expected and all(
            _takes(known[name], value) for name, value in trial.params.items()
        )
        if inside and set(trial.constraints) == set(search.constraints):
            by_name = dict(zip(objectives, trial.values, strict=True))
            fitting.append(
                create_trial(
                    values=[by_name[name] for name in search.objectives],
                    params=dict(trial.params),
                    distributions={name: known[name] for name in trial.params},
                    constraints=dict(sorted(trial.constraints.items())),
                    user_attrs={"from": where},
                    # For NSGA-II: all that was known before begins.
                    system_attrs={GENERATION: 0},
                )
            )
    if not fitting:
        and_constraints = ", and these constraints" if search.constraints else ""
        raise UserError(
            f"{where}: none of its {len(trials)} finished trials has these parameters within these ranges"
            f"{and_constraints}"
        )
    return fitting


def _takes(distribution: BaseDistribution, value: object) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


def _directions(search: SearchConfig) -> dict[str, str]:
    return {name: objective.direction for name, objective in search.objectives.items()}
