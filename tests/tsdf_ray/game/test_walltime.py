"""The arithmetic of a plan's time, with invented rates."""

from __future__ import annotations

from typing import Any

import pytest

from tsdf_ray.game.estimate import CORE_RATE, GPU_RATE, MATCH_START, START, estimate
from tsdf_ray.game.plan import Supply, plan
from tsdf_ray.game.walltime import Rates, side_by_side, speedup, stated_rates, step_seconds, time_of, with_measured
from tsdf_ray.scenario import Scenario

QUICKSTART = Scenario.load("quickstart").model_dump(mode="json")
BOX = Supply(64, 8)


def scenario(**changes: Any) -> Scenario:
    return Scenario.model_validate(QUICKSTART | changes)


@pytest.mark.parametrize(
    ("workers", "items", "faster"), [(1, 8, 1), (2, 8, 2), (3, 8, 8 / 3), (3, 4, 2), (8, 8, 8), (16, 8, 8)]
)
def test_items_are_taken_in_rounds(workers: int, items: int, faster: float) -> None:
    assert speedup(workers, [1.0] * items) == pytest.approx(faster)


def test_the_dearest_share_is_what_it_takes() -> None:
    assert speedup(2, [1.0, 1.0, 4.0, 4.0]) == pytest.approx(10 / 6)
    assert speedup(3, [1.0, 1.0, 4.0, 4.0]) == pytest.approx(10 / 4)


def test_generators_of_an_ensemble_are_shared_by_what_they_cost() -> None:
    """editor-128 and stargan-128, batches of 8 in two halves: as measured by `bench groups`, not twice as fast."""
    gpus = {"gpus_per_match": 2, "cpus_per_match": 2}
    both = {"tsdf": {"kind": "found", "batch": 8, "generators": ["stargan-128"]}}

    def learn(workers: int) -> float:
        game = scenario(micro_batch=4, defenders=both, resources={"workers": {"defender": workers}} | gpus)
        return step_seconds((game, "tsdf", "mtcnn"), plan(game, BOX), Rates(100.0, {}))["learn"]

    assert 1.5 < learn(1) / learn(2) < 1.8


def test_one_worker_each_is_the_estimate_of_the_list() -> None:
    game = scenario()
    made = plan(game, Supply(2, 0))
    time = time_of(game, made, made.parallel_matches, stated_rates(game, made))
    cost = estimate(game)
    assert time.match == pytest.approx(cost.longest / CORE_RATE)
    least = START + MATCH_START + max(cost.gflop / 2, cost.longest) / CORE_RATE
    assert least <= time.race < 1.01 * least, "four matches of two lengths in two slots leave next to no gap"
    assert time.cpu_hours == pytest.approx(cost.gflop / CORE_RATE / 3600)
    assert (time.gpu_hours, time.pieces) == (0, 4)


@pytest.mark.parametrize(
    ("lengths", "slots", "seconds"),
    [
        ([(42, 1.0)], 16, 3.0),
        ([(42, 1.0)], 42, 1.0),
        ([(42, 1.0)], 1000, 1.0),
        ([(42, 1.0)], 1, 42.0),
        ([(2, 1.0), (2, 3.0)], 2, 5.0),
        ([(1, 1.0), (3, 2.0)], 2, 4.0),
    ],
)
def test_slots_are_given_to_the_next_match(lengths: list[tuple[int, float]], slots: int, seconds: float) -> None:
    assert side_by_side(lengths, slots) == seconds


def seconds_of(workers: dict[str, int], micro_batch: int = 2, **resources: Any) -> dict[str, float]:
    game = scenario(micro_batch=micro_batch, resources={"workers": workers} | resources)
    made = plan(game, BOX)
    return step_seconds((game, "tsdf", "mtcnn"), made, Rates(100.0, {"retrain": 50.0}))


def test_groups_divide_what_can_be_divided() -> None:
    gpus = {"gpus_per_match": 4, "cpus_per_match": 4}
    one, four = seconds_of({}, **gpus), seconds_of({"defender": 4, "attacker": 4, "evaluator": 3}, **gpus)
    assert four["learn"] == pytest.approx(one["learn"] / 4)
    assert four["publish"] == pytest.approx(one["publish"] / 4)
    assert four["retrain"] == pytest.approx(one["retrain"] / 4)
    assert four["evaluate"] == pytest.approx(one["evaluate"] * 22 / 64), "64 photos by three"
    assert four["prepare"] == one["prepare"], "not divided"
    coarse = seconds_of({"defender": 4, "attacker": 4}, micro_batch=3, **gpus)
    assert coarse["retrain"] == pytest.approx(one["retrain"] / 3), "a batch of 8 is 3 micro-batches"


def test_cpus_bound_what_a_group_gains() -> None:
    one = seconds_of({})
    assert seconds_of({"attacker": 4}, cpus_per_match=2)["retrain"] == pytest.approx(one["retrain"] / 2)
    assert seconds_of({"attacker": 4}, cpus_per_match=1)["retrain"] == pytest.approx(one["retrain"])


def test_a_quarter_of_a_gpu_has_a_quarter_of_its_rate() -> None:
    whole, quarter = (scenario(resources={"gpus_per_match": share}) for share in (1, 0.25))
    rates = [stated_rates(game, plan(game, BOX)).stated for game in (whole, quarter)]
    assert rates == [GPU_RATE, GPU_RATE / 4]


def test_reserved_gpus_are_paid_for() -> None:
    game = scenario(resources={"gpus_per_match": 5, "cpus_per_match": 3})
    made = plan(game, BOX)
    time = time_of(game, made, 2, Rates(100.0, {}))
    total = estimate(game).gflop / 100
    assert time.gpu_hours == pytest.approx(3 * total / 3600), "three of the five GPUs are reserved"
    assert time.cpu_hours == pytest.approx(3 * total / 3600)


def test_a_measured_rate_goes_before_the_stated_one() -> None:
    rates = with_measured(Rates(100.0, {}), {"learn": 10.0})
    assert (rates.of("learn"), rates.of("retrain")) == (10.0, 100.0)


def test_a_search_is_its_trials_one_after_another_and_its_baselines() -> None:
    game = Scenario.load("sweep/separation-small")
    made = plan(game, Supply(2, 0))
    rates = stated_rates(game, made)
    time, cost = time_of(game, made, 2, rates), estimate(game)
    assert time.pieces == cost.matches
    assert time.cpu_hours == pytest.approx(cost.gflop / rates.stated / 3600)
