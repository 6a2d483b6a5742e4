"""Designs: a grid visits every point once, a Sobol sequence fills its ranges, and both know a setting by its number."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_search import section

from tsdf_ray.scenario.search import SearchConfig
from tune.designs import design, grid_point, grid_size, grid_values, sobol_point
from tune.study import distributions


def searching(parameters: dict[str, Any], kind: str = "grid", seed: int = 0) -> SearchConfig:
    return SearchConfig.model_validate(
        section(parameters=parameters, sampler={"kind": kind, "seed": seed}, constraints={})
    )


finite = st.one_of(
    st.tuples(st.integers(-5, 5), st.integers(1, 6), st.integers(1, 3)).map(
        lambda t: {"kind": "int", "low": t[0], "high": t[0] + t[1], "step": t[2]}
    ),
    st.tuples(st.integers(-20, 20), st.integers(1, 5), st.sampled_from([1, 3, 7])).map(
        lambda t: {"kind": "uniform", "low": t[0] / 10, "high": (t[0] + t[1] * t[2] + 1) / 10, "step": t[2] / 10}
    ),
    st.integers(1, 4).map(lambda n: {"kind": "choice", "values": ["a", 1, None, 2.5][:n]}),
)


@settings(max_examples=60, deadline=None)
@given(parameters=st.lists(finite, min_size=1, max_size=3), seed=st.integers(0, 1000))
def test_a_grid_visits_every_point_once(parameters: list[dict[str, Any]], seed: int) -> None:
    search = searching({f"p{i}": parameter for i, parameter in enumerate(parameters)}, seed=seed)
    size = grid_size(search)
    points = [grid_point(search, n) for n in range(size)]
    each = [grid_values(parameter) for parameter in search.parameters.values()]
    assert {tuple(point.values()) for point in points} == set(itertools.product(*each))
    assert len(points) == math.prod(map(len, each))
    assert grid_point(search, size) == points[0], "then it begins anew"
    known = distributions(search)
    assert all(known[name]._contains(known[name].to_internal_repr(v)) for point in points for name, v in point.items())


def test_an_unfinished_grid_is_in_no_order() -> None:
    parameters = {"x": {"kind": "int", "low": 0, "high": 99}}
    xs = [grid_point(searching(parameters), n)["x"] for n in range(100)]
    assert xs != sorted(xs)
    assert {x // 25 for x in xs[:25]} == {0, 1, 2, 3}
    assert xs != [grid_point(searching(parameters, seed=1), n)["x"] for n in range(100)]


def test_values_of_a_grid() -> None:
    search = searching(
        {
            "real": {"kind": "uniform", "low": 0.1, "high": 0.75, "step": 0.2},
            "whole": {"kind": "int", "low": 2, "high": 9, "step": 3},
            "named": {"kind": "choice", "named": {"gentle": {"steps": 4}, "rough": {"steps": 50}}},
        }
    )
    assert grid_values(search.parameters["real"]) == [0.1, 0.3, 0.5, 0.7]
    assert grid_values(search.parameters["whole"]) == [2, 5, 8]
    assert grid_values(search.parameters["named"]) == ["gentle", "rough"]
    for endless in ({"kind": "uniform", "low": 0, "high": 1}, {"kind": "loguniform", "low": 1, "high": 2}):
        with pytest.raises(ValueError, match="a grid needs a step"):
            grid_values(searching({"x": endless}, "sobol").parameters["x"])


EVERY_KIND: dict[str, dict[str, Any]] = {
    "real": {"kind": "uniform", "low": -1.5, "high": 0.25},
    "stepped": {"kind": "uniform", "low": 0.1, "high": 0.7, "step": 0.2},
    "log": {"kind": "loguniform", "low": 1e-5, "high": 1e-1},
    "whole": {"kind": "int", "low": 3, "high": 11, "step": 4},
    "whole log": {"kind": "int", "low": 1, "high": 64, "log": True},
    "choice": {"kind": "choice", "values": ["a", None, 3]},
}


@settings(max_examples=100, deadline=None)
@given(n=st.integers(0, 5000), seed=st.integers(0, 2**31 - 1))
def test_sobol_points_are_in_range(n: int, seed: int) -> None:
    search = searching(EVERY_KIND, "sobol", seed)
    known, point = distributions(search), sobol_point(search, n)
    assert list(point) == list(EVERY_KIND)
    assert all(known[name]._contains(known[name].to_internal_repr(value)) for name, value in point.items())
    assert type(point["whole log"]) is int


@pytest.mark.parametrize("kind", ["grid", "sobol"])
def test_a_setting_is_known_by_its_number_alone(kind: str) -> None:
    parameters = {name: EVERY_KIND[name] for name in ("stepped", "whole", "choice")}
    search = searching(parameters, kind)
    forward = [design(search, n) for n in range(17)]
    assert [design(search, n) for n in reversed(range(17))] == forward[::-1]
    assert design(SearchConfig.model_validate(search.model_dump(mode="json")), 13) == forward[13]
    assert forward != [design(searching(parameters, kind, seed=1), n) for n in range(17)]


def test_a_sobol_sequence_fills_evenly() -> None:
    """Every eighth of the range once in eight points, of real and of logarithmic parameters; choices in turn."""
    search = searching(
        {
            "real": {"kind": "uniform", "low": 0.0, "high": 8.0},
            "log": {"kind": "loguniform", "low": 1.0, "high": 256.0},
            "choice": {"kind": "choice", "values": ["a", "b"]},
        },
        "sobol",
    )
    points = [sobol_point(search, n) for n in range(8)]
    assert sorted(int(point["real"]) for point in points) == list(range(8))
    assert sorted(int(np.log2(point["log"])) for point in points) == list(range(8))
    assert [point["choice"] for point in points].count("a") == 4
