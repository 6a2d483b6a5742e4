"""What is read off a curve of SR_mask: persistence and half-life, with intervals through the resampled curves.

Within a round: the decay curve over shares of the retraining steps (half_life in steps, persistence as area). Over
rounds: w_s against G_{s-1}, G_s, G_{s+1}, ... (half_life_rounds, persistence_rounds).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tsdf_ray.metrics.bootstrap import Floats
from tsdf_ray.metrics.persistence import area, half_life
from tsdf_ray.metrics.resample import Groups

REFERENCES = ("", "_initial")
"""Suffix of the metric by reference: the clean forgery by the judged generator, or by G_0."""


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
    for suffix in REFERENCES:
        for points in _curves(groups, f"sr_mask{suffix}", {"decay"}):
            yield from _within_round(groups, sorted(points, key=lambda g: groups.keys[g].step_share), suffix)
        for points in _curves(groups, f"sr_mask{suffix}", {"before", "after", "later"}):
            yield from _over_rounds(groups, sorted(points, key=lambda g: groups.keys[g].judged_round), suffix)


def _curves(groups: Groups, metric: str, phases: set[str]) -> list[list[int]]:
    """The points of each curve, as indices of groups."""
    curves: dict[tuple[Any, ...], list[int]] = {}
    for g, key in enumerate(groups.keys):
        if key.metric == metric and key.phase in phases:
            race = (key.defender, key.attacker, key.round, key.split, key.model)
            curves.setdefault(race, []).append(g)
    return list(curves.values())


def _within_round(groups: Groups, points: Sequence[int], suffix: str) -> Iterator[Derived]:
    shares_K = np.array([groups.keys[g].step_share for g in points], dtype=np.float64)
    at = {
        key.step_share: groups.value_G[g]
        for g, key in enumerate(groups.keys)
        if (key.metric, key.phase, key.round) == ("steps", "decay", groups.keys[points[-1]].round)
    }
    # Without retraining there are no steps: the curve is flat and nothing is reached within 0 steps.
    steps_K = np.nan_to_num(np.array([at.get(share, np.nan) for share in shares_K.tolist()], dtype=np.float64))
    stayed = None if steps_K[-1] > 0 else "the attacker did not retrain in this round"
    yield from _both(groups, points, (shares_K, steps_K), ("persistence" + suffix, "half_life" + suffix), stayed)


def _over_rounds(groups: Groups, points: Sequence[int], suffix: str) -> Iterator[Derived]:
    judged_K = np.array([groups.keys[g].judged_round for g in points])
    rounds_K = (judged_K - judged_K[0]).astype(np.float64)
    names = ("persistence_rounds" + suffix, "half_life_rounds" + suffix)
    for found in _both(groups, points, (rounds_K, rounds_K), names, None):
        yield replace(found, keys=found.keys | {"phase": "later"})


def _both(
    groups: Groups, points: Sequence[int], axes: tuple[Floats, Floats], names: tuple[str, str], stayed: str | None
) -> Iterator[Derived]:
    if len(points) < 2:
        return
    y_K = groups.value_G[points]
    y_RK = groups.replicates_GR[points].T
    missing = None
    if not np.isfinite(y_K).all():
        missing = "a point of the curve is not available: no pair has an edited region"
    elif y_K[0] <= 0:
        missing = "SR_mask is zero at the start: there is nothing to lose"
    n = int(groups.n_G[points].min())
    head = groups.keys[points[-1]]._asdict()
    yield Derived(head | {"metric": names[0]}, float(area(axes[0], y_K)), area(axes[0], y_RK), n, missing, None)
    life, lives_R, end = half_life(axes[1], y_K), half_life(axes[1], y_RK), float(axes[1][-1])
    late = None
    if np.isinf(life):
        late = stayed or "not reached: SR_mask is still at least half of its start"
    yield Derived(head | {"metric": names[1]}, float(life), lives_R, n, missing or late, end)
