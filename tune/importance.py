"""Which parameters decide an objective: Optuna's PED-ANOVA over the complete trials of the table."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial

from tsdf_ray.scenario.search import SearchConfig
from tsdf_ray.store.trials import Trial
from tune.front import scored
from tune.study import frozen

FEWEST = 8
"""Complete trials below which nothing is said."""
SHARE = 0.25
"""Of the trials that counts as good: more than Optuna's tenth, of which a small search has two or three."""
TOP = 5
"""At least so many count as good: Optuna's advice for PED-ANOVA."""


@dataclass(frozen=True)
class Importance:
    """How much each parameter decides whether a trial is among the best by one objective."""

    shares: dict[str, float] | None
    """Parameter -> share, the largest first; they add up to 1."""
    reason: str | None = None
    """Why there are none."""
    trials: int = 0
    top: int = 0
    """How many of the `trials` counted as good."""


def study_of(search: SearchConfig, trials: Sequence[Trial]) -> optuna.Study:
    """An in-memory study with the ended trials."""
    directions = [objective.direction for objective in search.objectives.values()]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(seed=0))
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials([frozen(search, trial) for trial in trials if trial.state != "running"])
    return study


def importance(search: SearchConfig, trials: Sequence[Trial], objective: str) -> Importance:
    """By the value of `objective` alone, whether constraints are kept to or not. Conditional parameters count too."""
    usable = scored(search, trials)
    if len(usable) < FEWEST:
        return Importance(None, f"{len(usable)} complete trials; at least {FEWEST} are needed")
    values = [trial.last.values[objective] for trial in usable if trial.last]
    if min(values) == max(values):
        return Importance(None, f"{objective} is the same in every trial")
    place = list(search.objectives).index(objective)
    sign = -1.0 if search.objectives[objective].direction == "maximize" else 1.0

    def loss(trial: FrozenTrial) -> float:
        return float(sign * trial.values[place])

    quantile = max(SHARE, TOP / len(usable))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
    with warnings.catch_warnings():
        # It reminds its callers that less must be better, as it is here, and of regimes too small to count.
        warnings.simplefilter("ignore")
        raw = evaluator.evaluate(study_of(search, usable), target=loss)
    total = sum(raw.values())
    if not total > 0:
        return Importance(None, "the best trials differ from the others in no parameter")
    order = sorted(raw.items(), key=lambda item: -item[1])
    return Importance(
        {name: share / total for name, share in order}, None, len(usable), math.ceil(quantile * len(usable))
    )
