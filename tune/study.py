"""Optuna's view of the search: distributions of the parameters, and trials of the table as Optuna's own."""

from __future__ import annotations

from datetime import UTC, datetime

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from tsdf_ray.scenario.search import Choice, Int, LogUniform, Parameter, SearchConfig, Uniform
from tune.table import Trial

_STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def distributions(search: SearchConfig) -> dict[str, BaseDistribution]:
    """Parameter -> Optuna's distribution; choices are over the names of their options."""
    return {name: _distribution(parameter) for name, parameter in search.parameters.items()}


def _distribution(parameter: Parameter) -> BaseDistribution:
    match parameter:
        case Uniform():
            return FloatDistribution(parameter.low, parameter.high, step=parameter.step)
        case LogUniform():
            return FloatDistribution(parameter.low, parameter.high, log=True)
        case Int():
            return IntDistribution(parameter.low, parameter.high, parameter.log, parameter.step)
        case Choice():
            return CategoricalDistribution(list(parameter.options))


def frozen(search: SearchConfig, trial: Trial) -> FrozenTrial:
    """A trial of the table as Optuna keeps it. A complete one without a value of every objective has failed there."""
    known = distributions(search)
    values = [trial.last.values.get(name) for name in search.objectives] if trial.last else [None]
    state = _STATES[trial.state]
    if state is TrialState.COMPLETE and None in values:
        state = TrialState.FAIL
    return optuna.trial.FrozenTrial(
        number=trial.number,
        state=state,
        value=None,
        values=[value for value in values if value is not None] if state is TrialState.COMPLETE else None,
        datetime_start=datetime.fromtimestamp(trial.started, UTC).replace(tzinfo=None),
        datetime_complete=None
        if trial.ended is None
        else datetime.fromtimestamp(trial.ended, UTC).replace(tzinfo=None),
        params=dict(trial.params),
        distributions={name: known[name] for name in trial.params},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=trial.number,
    )
