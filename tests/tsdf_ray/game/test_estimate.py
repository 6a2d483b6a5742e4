"""Time estimates against measured times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tsdf_ray.game.estimate import CORE_RATE, GPU_RATE, MATCH_START, START, Cost, estimate, span
from tsdf_ray.scenario import Scenario

# Seconds on two cores of the machine of docs/results.md.
MEASURED = {"quickstart": 344, "ablation/purification": 266, "paper/persistence-small": 357}


@pytest.mark.parametrize("name", MEASURED)
def test_within_a_factor_of_two_of_the_measured_time(name: str) -> None:
    assert MEASURED[name] / 2 < estimate(Scenario.load(name)).seconds(2) < 2 * MEASURED[name]


COST = Cost(gflop=8e4, longest=2e4, matches=4, cores=1.0, cpus_per_match=1.0, gpus_per_match=0.0, parallel=None)


def work(cost: Cost, cpus: int) -> float:
    """GFLOP one core does one after another, on the machine's slowest way through the race."""
    side_by_side = {1: 1, 2: 2, 3: 3, 4: 4, 8: 4}[cpus] if cost.parallel is None else cost.parallel
    return (cost.seconds(cpus) - START - MATCH_START * cost.matches / side_by_side) * CORE_RATE


@pytest.mark.parametrize(("cpus", "expected"), [(1, 8e4), (2, 4e4), (4, 2e4), (8, 2e4)])
def test_matches_side_by_side(cpus: int, expected: float) -> None:
    assert work(COST, cpus) == pytest.approx(expected)


def test_what_bounds_a_race() -> None:
    assert work(replace(COST, parallel=1), 8) == pytest.approx(8e4)
    assert work(replace(COST, longest=5e4), 4) == pytest.approx(5e4), "a match is not divided"
    wide = replace(COST, cpus_per_match=2.0, cores=2.0, parallel=2)
    assert work(wide, 4) == pytest.approx(8e4 / 2 / 2)


def test_gpus_count_by_the_hour() -> None:
    hour = replace(COST, gflop=GPU_RATE * 3600 * 40, gpus_per_match=1.0)
    assert hour.text(2) == "~40 GPU-hours"
    assert replace(hour, gflop=GPU_RATE * 60 * 20).text(2) == "~20 GPU-minutes"


def test_seeds_and_pairs_add_up() -> None:
    one, three = (estimate(Scenario.load("quickstart", (f"seeds={seeds}",))) for seeds in ("[0]", "[0, 1, 2]"))
    assert three.gflop == pytest.approx(3 * one.gflop)
    assert (one.matches, three.matches) == (4, 12)
    assert three.longest == one.longest


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3, "10 s"),
        (42, "40 s"),
        (100, "1.7 min"),
        (344, "5.7 min"),
        (7199, "120 min"),
        (12_600, "3.5 h"),
        (1e6, "12 days"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text
