"""What is read off a curve of SR_mask: persistence and half-life, with intervals through the resampled curves.

Within a round: the decay curve over shares of the retraining steps (half_life in steps, persistence as area). Over
rounds: w_s against G_{s-1}, G_s, G_{s+1}, ... (half_life_rounds, persistence_rounds).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tsdf_ray.metrics.bootstrap import Floats
from tsdf_ray.metrics.persistence import area, half_life
from tsdf_ray.metrics.resample import Groups

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("", "_initial")
"""Suffix of the metric by reference: the clean forgery by the judged generator, or by G_0."""

_RACE = ["defender", "attacker", "round", "split", "model"]


@dataclass(frozen=True)
class Derived:
    """One number read off a curve: its key columns, estimate, R resampled estimates, and where the curve ends."""

    keys: dict[str, Any]
    value: float
    replicates_R: Floats
    n: int
    reason: str | None
    end: float | None
    """For a half-life: the last point, above which an infinite value is censored."""


def derive(groups: Groups) -> Iterator[Derived]:
    """All derived numbers of the curves in `groups`; curves of one point have none."""
    keys = groups.keys
    for suffix in REFERENCES:
        curve = keys[keys["metric"] == f"sr_mask{suffix}"]
        for _, points in curve[curve["phase"] == "decay"].groupby(_RACE, sort=False, dropna=False):
            yield from _within_round(groups, points.sort_values("step_share"), suffix)
        for _, points in curve[curve["phase"].isin(["before", "after", "later"])].groupby(
            _RACE, sort=False, dropna=False
        ):
            yield from _over_rounds(groups, points.sort_values("judged_round"), suffix)


def _within_round(groups: Groups, points: pd.DataFrame, suffix: str) -> Iterator[Derived]:
    keys, head = groups.keys, points.iloc[-1]
    steps = keys[(keys["metric"] == "steps") & (keys["phase"] == "decay") & (keys["round"] == head["round"])]
    at = dict(zip(steps["step_share"], groups.value_G[steps.index], strict=True))
    shares_K = points["step_share"].to_numpy(np.float64)
    # Without retraining there are no steps: the curve is flat and nothing is reached within 0 steps.
    steps_K = np.nan_to_num(np.array([at.get(share, np.nan) for share in shares_K], dtype=np.float64))
    stayed = None if steps_K[-1] > 0 else "the attacker did not retrain in this round"
    yield from _both(groups, points, (shares_K, steps_K), ("persistence" + suffix, "half_life" + suffix), stayed)


def _over_rounds(groups: Groups, points: pd.DataFrame, suffix: str) -> Iterator[Derived]:
    rounds_K = (points["judged_round"] - points["judged_round"].iloc[0]).to_numpy(np.float64)
    names = ("persistence_rounds" + suffix, "half_life_rounds" + suffix)
    for found in _both(groups, points, (rounds_K, rounds_K), names, None):
        yield Derived(found.keys | {"phase": "later"}, *list(vars(found).values())[1:])


def _both(
    groups: Groups, points: pd.DataFrame, axes: tuple[Floats, Floats], names: tuple[str, str], stayed: str | None
) -> Iterator[Derived]:
    if len(points) < 2:
        return
    y_K = groups.value_G[points.index]
    y_RK = groups.replicates_GR[points.index].T
    missing = None
    if not np.isfinite(y_K).all():
        missing = "a point of the curve is not available: no pair has an edited region"
    elif y_K[0] <= 0:
        missing = "SR_mask is zero at the start: there is nothing to lose"
    n = int(groups.n_G[points.index].min())
    head = points.iloc[-1].drop(["photos", "metric"]).to_dict()
    yield Derived({**head, "metric": names[0]}, float(area(axes[0], y_K)), area(axes[0], y_RK), n, missing, None)
    life, lives_R, end = half_life(axes[1], y_K), half_life(axes[1], y_RK), float(axes[1][-1])
    late = None
    if np.isinf(life):
        late = stayed or "not reached: SR_mask is still at least half of its start"
    yield Derived({**head, "metric": names[1]}, float(life), lives_R, n, missing or late, end)
