"""Settings that need no model: the points of a grid, and of a scrambled Sobol sequence. The n-th depends on n alone."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
from scipy.stats import qmc

from tsdf_ray.randomness import numpy_rng, seed_for
from tsdf_ray.scenario.search import Choice, Int, LogUniform, Parameter, SearchConfig, Uniform


def design(search: SearchConfig, n: int) -> dict[str, Any]:
    """The n-th setting, from 0, of the sampler `grid` or `sobol`."""
    return grid_point(search, n) if search.sampler.kind == "grid" else sobol_point(search, n)


def grid_values(parameter: Parameter) -> list[Any]:
    """All values of a finite parameter. Raises ValueError when it has infinitely many."""
    match parameter:
        case Choice():
            return list(parameter.options)
        case Int():
            return list(range(parameter.low, parameter.high + 1, parameter.step))
        case Uniform(step=float(step)):
            # As written, and as Optuna counts: in binary the third tenth lies above 0.3, out of range.
            low, high, by = (Decimal(str(number)) for number in (parameter.low, parameter.high, step))
            return [float(low + i * by) for i in range(int((high - low) // by) + 1)]
        case _:
            raise ValueError("a grid needs a step, whole numbers or choices")


def grid_size(search: SearchConfig) -> int:
    """How many points the grid has."""
    return math.prod(len(grid_values(parameter)) for parameter in search.parameters.values())


def grid_point(search: SearchConfig, n: int) -> dict[str, Any]:
    """The n-th point in an order that is random by `sampler.seed`, so that an unfinished grid covers its range; after
    the last point it begins anew."""
    values = {name: grid_values(parameter) for name, parameter in search.parameters.items()}
    size = grid_size(search)
    at = int(numpy_rng(search.sampler.seed, "search", "grid").permutation(size)[n % size])
    point = {}
    for name, own in values.items():
        at, i = divmod(at, len(own))
        point[name] = own[i]
    return point


def sobol_point(search: SearchConfig, n: int) -> dict[str, Any]:
    """The n-th point of a scrambled Sobol sequence, each coordinate mapped to its distribution."""
    seed = seed_for(search.sampler.seed, "search", "sobol") % 2**32
    sequence = qmc.Sobol(len(search.parameters), scramble=True, rng=np.random.default_rng(seed))
    if n:
        sequence.fast_forward(n)
    unit = sequence.random(1)[0]
    return {
        name: _from_unit(parameter, float(u))
        for (name, parameter), u in zip(search.parameters.items(), unit, strict=True)
    }


def _from_unit(parameter: Parameter, u: float) -> Any:
    match parameter:
        case LogUniform():
            value = math.exp(math.log(parameter.low) + u * (math.log(parameter.high) - math.log(parameter.low)))
            return min(max(value, parameter.low), parameter.high)
        case Int(log=True):
            low, high = math.log(parameter.low), math.log(parameter.high + 1)
            return min(parameter.high, math.floor(math.exp(low + u * (high - low))))
        case Uniform(step=None):
            return parameter.low + u * (parameter.high - parameter.low)
        case _:
            own = grid_values(parameter)
            return own[min(len(own) - 1, math.floor(u * len(own)))]
