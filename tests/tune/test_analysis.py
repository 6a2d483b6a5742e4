"""Measures and violations, against numbers worked out by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tsdf_ray.scenario.search import Constraint, Measure, Objective, SearchConfig
from tune.analysis import constrained_value, measure, measured, report_values, violation


def _cell(value: float | None, **more: Any) -> dict[str, Any]:
    half = None if value is None else 0.1
    return {"value": value, "low": None if half is None else value - half, "high": None, "n": 4} | more


def _metrics(protection: tuple[float, float], psnr: float, duq: tuple[float, float]) -> dict[str, Any]:
    return {
        "protection": [_cell(value) for value in protection],
        "psnr": [_cell(psnr)] * 2,
        "duq": {"mtcnn": [_cell(value) for value in duq]},
    }


PAIRS: dict[str, dict[str, Any]] = {
    "tsdf/a": _metrics((0.8, 0.6), 33.0, (0.2, 0.4)),
    "tsdf/b": _metrics((0.4, 0.7), 31.0, (0.3, 0.1)),
    "found/a": {"protection": [_cell(0.2), _cell(0.1)]},
    "found/b": {"protection": [_cell(0.3), _cell(0.5)]},
}
TSDF = {name: metrics for name, metrics in PAIRS.items() if name.startswith("tsdf/")}


@pytest.mark.parametrize(
    ("what", "rounds_played", "better", "expected"),
    [
        ({"metric": "protection"}, 2, "maximize", 0.65),
        ({"metric": "protection"}, 1, "maximize", 0.6),
        ({"metric": "protection", "over": "worst"}, 2, "maximize", 0.6),
        ({"metric": "protection", "over": "worst"}, 2, "minimize", 0.7),
        ({"metric": "protection", "rounds": 1, "over": "worst"}, 2, "maximize", 0.4),
        # Rounds first: the means of a and b are 0.7 and 0.55.
        ({"metric": "protection", "rounds": "mean", "over": "worst"}, 2, "maximize", 0.55),
        ({"metric": "protection", "attackers": ["a"]}, 2, "maximize", 0.6),
        ({"metric": "duq.mtcnn", "over": "worst"}, 2, "minimize", 0.4),
        ({"metric": "psnr"}, 2, "maximize", 32.0),
    ],
)
def test_measure(what: dict[str, Any], rounds_played: int, better: Any, expected: float) -> None:
    assert measure(TSDF, Measure(**what), rounds_played, better) == pytest.approx(expected)


def test_several_defenders_mean_of_their_worst() -> None:
    worst = Measure(metric="protection", over="worst")
    # tsdf: min(0.6, 0.7); found: min(0.1, 0.5).
    assert measure(PAIRS, worst, 2, "maximize") == pytest.approx((0.6 + 0.1) / 2)
    # tsdf: max(0.6, 0.7); found: max(0.1, 0.5).
    assert measure(PAIRS, worst, 2, "minimize") == pytest.approx((0.7 + 0.5) / 2)
    only = worst.model_copy(update={"defenders": ("found",)})
    assert measure(PAIRS, only, 2, "maximize") == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("pairs", "what", "reason"),
    [
        ({}, {"metric": "protection"}, "no pair"),
        (TSDF, {"metric": "lpips"}, "tsdf/a: lpips was not measured"),
        (TSDF, {"metric": "duq"}, r"name one: duq\.mtcnn"),
        (TSDF, {"metric": "duq.blazeface"}, r"duq\.blazeface was not measured"),
        (TSDF, {"metric": "psnr.mtcnn"}, "was not measured"),
        (TSDF, {"metric": "protection", "rounds": 3}, "round 3 was not played"),
        (TSDF, {"metric": "protection", "attackers": ["c"]}, "tsdf/c was not played"),
        ({"d/a": {"m": [_cell(0.1), None]}}, {"metric": "m"}, "round 2 was not played"),
        ({"d/a": {"m": [_cell(0.1), _cell(None, reason="no face <found>")]}}, {"metric": "m"}, "no face <found>"),
        ({"d/a": {"m": [_cell(0.1), _cell(None, censored_above=40)]}}, {"metric": "m"}, "not reached within 40"),
        ({"d/a": {"m": [_cell(0.1), _cell(float("nan"))]}}, {"metric": "m"}, "no value"),
        ({"d/a": {"m": [_cell(0.1), _cell(float("inf"))]}}, {"metric": "m"}, "no value"),
        # One value that is missing makes the mean unknown, and the worst case too.
        ({"d/a": {"m": [_cell(0.1)] * 2}, "d/b": {"m": [None] * 2}}, {"metric": "m", "over": "worst"}, "d/b"),
    ],
)
def test_a_missing_value_is_none_with_its_reason(pairs: Any, what: dict[str, Any], reason: str) -> None:
    found = measured(pairs, Measure(**what), 2, "maximize")
    assert found.value is None
    assert found.reason is not None
    assert re.search(reason, found.reason)


def test_interval_of_one_cell_of_the_worst_pair_and_of_no_mean() -> None:
    one = measured(TSDF, Measure(metric="protection", attackers=("b",)), 2, "maximize")
    assert (one.low, one.note) == (pytest.approx(0.6), None)
    worst = measured(TSDF, Measure(metric="protection", over="worst"), 2, "maximize")
    assert worst.low == pytest.approx(0.5)
    assert worst.note == "interval of the worst pair alone, against a"
    for what in (Measure(metric="protection"), Measure(metric="protection", attackers=("a",), rounds="mean")):
        mean = measured(TSDF, what, 2, "maximize")
        assert mean.low is None
        assert mean.note is not None
        assert "no interval" in mean.note


def test_violation_is_positive_on_the_wrong_side_alone() -> None:
    least, most = Constraint(metric="psnr", at_least=32.0), Constraint(metric="yield", at_most=0.5)
    assert [violation(least, v) for v in (31.0, 32.0, 34.0)] == [1.0, 0.0, -2.0]
    assert [violation(most, v) for v in (0.75, 0.5, 0.25)] == [0.25, 0.0, -0.25]
    for constraint, value in ((least, 31.0), (least, 40.0), (most, 0.75)):
        assert constrained_value(constraint, violation(constraint, value)) == value


def test_report_values_tell_what_is_missing() -> None:
    search = SearchConfig(
        parameters={"defenders.tsdf.tau": {"kind": "uniform", "low": 0, "high": 1}},
        objectives={
            "protection": Objective(metric="protection", over="worst"),
            "starving": Objective(metric="yield", direction="minimize"),
            "detection": Objective(metric="duq.mtcnn", over="worst", direction="minimize"),
        },
        constraints={
            "visible": Constraint(metric="psnr", at_least=32.0, over="worst"),
            "likeness": Constraint(metric="ssim", at_least=0.9),
        },
    )
    values, violations, missing = report_values(search, TSDF, 2)
    assert values == {"protection": pytest.approx(0.6), "detection": pytest.approx(0.4)}
    # The worst PSNR is the least one.
    assert violations == {"visible": pytest.approx(1.0)}
    assert set(missing) == {"starving", "likeness"}
    assert "yield" in missing["starving"]
