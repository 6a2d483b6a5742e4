"""The separation map: the first objective over two parameters at a fixed visibility, a smooth surface through trials.

With the defaults these are the threshold tau and the share of pixels kept for poison: where the trade lies between
breaking the forgery and starving the retraining. Trials differ in other parameters and in visibility as well; so the
PSNR is a third coordinate of the fit, and the surface is shown only if it foretells trials that it was not fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
import numpy.typing as npt
from scipy.interpolate import RBFInterpolator
from scipy.spatial import KDTree

from tsdf_ray.scenario.search import Choice, Int, LogUniform, Parameter, SearchConfig
from tsdf_ray.store.trials import Trial
from tune.analysis import bound
from tune.front import scored
from tune.importance import importance

FEWEST = 10
"""Trials below which no surface is fitted."""
SIDE = 100
"""Grid points per axis."""
REACH = 0.25
"""A grid point farther from every trial (each axis of length 1) stays empty."""
LEAST = 0.1
"""A surface that explains less of left-out trials is not shown: the best of some smoothings fits a little by chance."""
_SMOOTHINGS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_PSNR_SCALE = 3.0
"""Decibels that count as far as the whole range of a parameter, or more when trials spread more."""
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SeparationMap:
    """What is drawn: trials as dots, and the surface where it can be told."""

    objective: str
    parameters: tuple[str, str]
    trials: tuple[Trial, ...]
    xs: Array
    """[SIDE] values of the first parameter."""
    ys: Array
    """[SIDE] values of the second one."""
    surface: Array | None
    """[SIDE, SIDE] (y, x), NaN where no trial is near."""
    psnr: float | None
    """Of the surface; None where trials do not differ in it, or it was not measured."""
    foretold: float | None
    """Share of the variance of left-out trials that the surface explains (cross-validated R²)."""
    reason: str | None
    """Why there is no surface."""


def numeric(search: SearchConfig) -> list[str]:
    """Parameters that have an axis."""
    return [name for name, parameter in search.parameters.items() if not isinstance(parameter, Choice)]


def map_parameters(search: SearchConfig, trials: Sequence[Trial]) -> tuple[str, str] | None:
    """`...tau` and `...share.fraction` where they are searched, else the two numeric ones that decide most."""
    names = numeric(search)
    tau = next((name for name in names if name.endswith(".tau")), None)
    share = next((name for name in names if name.endswith(".share.fraction")), None)
    if tau and share:
        return tau, share
    if len(names) < 2:
        return None
    ranked = importance(search, trials, next(iter(search.objectives))).shares or {}
    first, second = sorted(names, key=lambda name: -ranked.get(name, 0.0))[:2]
    return first, second


def separation_map(search: SearchConfig, trials: Sequence[Trial]) -> tuple[SeparationMap | None, str | None]:
    """The map, or why there is none. A map without a surface shows the trials alone, and says why."""
    chosen = map_parameters(search, trials)
    if chosen is None:
        return None, "a map needs two numeric parameters; the search has fewer"
    usable = [trial for trial in scored(search, trials) if all(name in trial.params for name in chosen)]
    if not usable:
        return None, f"no complete trial has both {chosen[0]} and {chosen[1]}"
    x, y = (search.parameters[name] for name in chosen)
    grid = np.linspace(0.0, 1.0, SIDE)
    fitted = _fit(search, usable, chosen, grid)
    return SeparationMap(
        next(iter(search.objectives)),
        chosen,
        tuple(usable),
        _from_unit(x, grid),
        _from_unit(y, grid),
        fitted.surface,
        fitted.psnr,
        fitted.foretold,
        fitted.reason,
    ), None


@dataclass(frozen=True)
class _Fit:
    surface: Array | None = None
    psnr: float | None = None
    foretold: float | None = None
    reason: str | None = None


def _fit(search: SearchConfig, trials: Sequence[Trial], chosen: tuple[str, str], grid: Array) -> _Fit:
    objective = next(iter(search.objectives))
    values_N = np.array([trial.last.values[objective] for trial in trials if trial.last])
    if len(trials) < FEWEST:
        return _Fit(reason=f"{len(trials)} trials; a surface needs {FEWEST}")
    if float(np.ptp(values_N)) == 0.0:
        return _Fit(reason=f"{objective} is the same in every trial")
    columns = [to_unit(search.parameters[name], [trial.params[name] for trial in trials]) for name in chosen]
    at: list[Array] = list(np.meshgrid(grid, grid))
    psnr, scaled = _visibility(search, trials)
    if psnr is not None and scaled is not None:
        columns.append(scaled[:-1])
        at.append(np.full_like(at[0], scaled[-1]))
    points_ND = np.stack(columns, 1)
    grid_GD = np.stack([axis.ravel() for axis in at], 1)
    try:
        smoothing, foretold = _cross_validated(points_ND, values_N)
        surface_G = _surface(points_ND, values_N, smoothing)(grid_GD)
    except np.linalg.LinAlgError:
        return _Fit(psnr=psnr, reason="trials lie on one line; no surface goes through them alone")
    if foretold < LEAST:
        return _Fit(psnr=psnr, foretold=foretold, reason="it hardly foretells trials better than their mean does")
    far_G = KDTree(points_ND).query(grid_GD)[0] > REACH
    if far_G.all():
        return _Fit(psnr=psnr, foretold=foretold, reason=f"no trial is near PSNR {psnr:.1f} dB")
    # A smooth surface may swing beyond anything that was seen.
    surface_G = np.clip(surface_G, values_N.min(), values_N.max())
    surface_G[far_G] = np.nan
    return _Fit(surface_G.reshape(len(grid), len(grid)), psnr, foretold)


def _surface(points_ND: Array, values_N: Array, smoothing: float) -> RBFInterpolator:
    near = 64 if len(points_ND) > 256 else None
    return RBFInterpolator(points_ND, values_N, neighbors=near, smoothing=smoothing, kernel="thin_plate_spline")


def _cross_validated(points_ND: Array, values_N: Array) -> tuple[float, float]:
    """The smoothing that foretells left-out trials best, and how well: 1 - error / variance, over ten folds."""
    count = len(values_N)
    fold_N = np.arange(count) % min(10, count)
    best = (_SMOOTHINGS[-1], -np.inf)
    for smoothing in _SMOOTHINGS:
        errors, spread = 0.0, 0.0
        for fold in range(min(10, count)):
            out = fold_N == fold
            told = _surface(points_ND[~out], values_N[~out], smoothing)(points_ND[out])
            errors += float(((told - values_N[out]) ** 2).sum())
            # Against what the other trials' mean would have said.
            spread += float(((values_N[~out].mean() - values_N[out]) ** 2).sum())
        if spread > 0 and 1 - errors / spread > best[1]:
            best = (smoothing, 1 - errors / spread)
    return best


def _visibility(search: SearchConfig, trials: Sequence[Trial]) -> tuple[float | None, Array | None]:
    """PSNR of the surface, and the trials' PSNR with it at the end, scaled to the map; None where it does not count."""
    measured = [psnr_of(trial) for trial in trials]
    known = [value for value in measured if value is not None]
    if len(known) < len(measured) or max(known) - min(known) < 0.1:
        return None, None
    limits = (bound(c) for c in search.constraints.values() if c.metric == "psnr" and c.at_least is not None)
    psnr = next(limits, median(known))
    scale = max(_PSNR_SCALE, max(known) - min(known))
    return psnr, (np.array([*known, psnr]) - min(known)) / scale


def psnr_of(trial: Trial) -> float | None:
    """PSNR of the published photos after a trial's last round: the mean over its pairs."""
    metrics = trial.last.metrics if trial.last else {}
    values = [value for pair in metrics.values() if (value := pair.get("psnr")) is not None]
    return fmean(values) if values else None


def to_unit(parameter: Parameter, values: Sequence[object]) -> Array:
    """Values of a numeric parameter on its axis: 0 at its low end, 1 at its high end, on the scale it is drawn from."""
    assert not isinstance(parameter, Choice)
    low, high, given = float(parameter.low), float(parameter.high), np.array(values, dtype=np.float64)
    if is_log(parameter):
        return np.asarray(np.log(given / low) / np.log(high / low), dtype=np.float64)
    return np.asarray((given - low) / (high - low), dtype=np.float64)


def _from_unit(parameter: Parameter, units: Array) -> Array:
    assert not isinstance(parameter, Choice)
    low, high = float(parameter.low), float(parameter.high)
    return np.asarray(low * (high / low) ** units if is_log(parameter) else low + (high - low) * units)


def is_log(parameter: Parameter) -> bool:
    """Are all orders of magnitude alike?"""
    return isinstance(parameter, LogUniform) or (isinstance(parameter, Int) and parameter.log)
