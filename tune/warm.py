"""What earlier searches know: finished trials of search directories and of Optuna storages, for the sampler to learn
from. They are not trials of this search."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from tsdf_ray.errors import UserError
from tsdf_ray.scenario import Scenario
from tsdf_ray.scenario.search import SearchConfig, applies
from tsdf_ray.store.rundir import read_info
from tsdf_ray.store.trials import TrialsTable
from tune.study import distributions, frozen, ordered


def earlier_trials(search: SearchConfig) -> list[FrozenTrial]:
    """Trials of `start.runs` and `start.storage` that fit: same parameters, in range, same objectives.

    Raises UserError when a source cannot be read, has other objectives, or holds nothing that fits.
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
    if other is None or {n: o.direction for n, o in other.objectives.items()} != _directions(search):
        raise UserError(f"{where}: has other objectives; a sampler cannot learn from them")
    trials = [frozen(other, trial) for trial in TrialsTable(root / "trials.jsonl").of("complete")]
    return _fitting(search, trials, where, list(other.objectives))


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
            known[name]._contains(known[name].to_internal_repr(value)) for name, value in trial.params.items()
        )
        if inside:
            by_name = dict(zip(objectives, trial.values, strict=True))
            fitting.append(
                create_trial(
                    values=[by_name[name] for name in search.objectives],
                    params=dict(trial.params),
                    distributions={name: known[name] for name in trial.params},
                    constraints=dict(trial.constraints),
                    user_attrs={"from": where},
                )
            )
    if not fitting:
        raise UserError(f"{where}: none of its {len(trials)} finished trials has these parameters within these ranges")
    return fitting


def _directions(search: SearchConfig) -> dict[str, str]:
    return {name: objective.direction for name, objective in search.objectives.items()}
