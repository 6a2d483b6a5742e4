"""The plan is pure: a table of supply and demand, and invariants of every plan it makes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdf_ray.errors import UserError
from tsdf_ray.game.plan import Supply, plan, trial_plan
from tsdf_ray.scenario import Scenario


def quickstart(seeds: int = 1, **resources: object) -> Scenario:
    base = Scenario.load("quickstart").model_dump(mode="json")
    base["seeds"] = list(range(seeds))
    base["resources"] = {key: value for key, value in resources.items() if value is not None}
    return Scenario.model_validate(base)


# cpus, gpus of the machine | cpus, gpus of a match, most at once, seeds | matches side by side (of 4 pairs)
TABLE = [
    (1, 0, 1, 0, None, 1, 1),
    (2, 0, 1, 0, None, 1, 2),
    (8, 0, 1, 0, None, 1, 4),
    (8, 0, 1, 0, None, 3, 8),
    (8, 0, 3, 0, None, 1, 2),
    (8, 0, 1, 0, 3, 1, 3),
    (16, 1, 1, 1, None, 1, 1),
    (16, 1, 1, 0.25, None, 1, 4),
    (16, 1, 1, 0.5, None, 1, 2),
    (2, 8, 1, 1, None, 1, 2),
    (64, 8, 1, 2, None, 1, 4),
]


@pytest.mark.parametrize(("cpus", "gpus", "want_cpus", "want_gpus", "most", "seeds", "parallel"), TABLE)
def test_table(
    cpus: float, gpus: float, want_cpus: float, want_gpus: float, most: int | None, seeds: int, parallel: int
) -> None:
    scenario = quickstart(seeds, cpus_per_match=want_cpus, gpus_per_match=want_gpus, parallel_matches=most)
    assert plan(scenario, Supply(cpus, gpus)).parallel_matches == parallel


@pytest.mark.parametrize(
    ("supply", "resources", "key"),
    [
        (Supply(2, 0), {"cpus_per_match": 4}, "cpus_per_match"),
        (Supply(2, 0), {"gpus_per_match": 1}, "gpus_per_match"),
        (Supply(2, 1), {"gpus_per_match": 2}, "gpus_per_match"),
    ],
)
def test_what_cannot_fit_is_refused(supply: Supply, resources: dict[str, float], key: str) -> None:
    with pytest.raises(UserError, match=key):
        plan(quickstart(**resources), supply)


@settings(deadline=None)
@given(
    cpus=st.integers(1, 512),
    gpus=st.integers(0, 64),
    want_cpus=st.sampled_from([0.25, 0.5, 1, 2, 3, 7]),
    want_gpus=st.sampled_from([0, 0.25, 0.5, 1, 2]),
)
def test_a_plan_never_asks_for_more_than_there_is(cpus: int, gpus: int, want_cpus: float, want_gpus: float) -> None:
    scenario = quickstart(5, cpus_per_match=want_cpus, gpus_per_match=want_gpus)
    try:
        made = plan(scenario, Supply(cpus, gpus))
    except UserError:
        assert want_cpus > cpus or want_gpus > gpus
        return
    assert made.parallel_matches >= 1
    assert sum(w.cpus for ws in made.roles.values() for w in ws) * made.parallel_matches <= cpus + 1e-9
    assert sum(w.gpus for ws in made.roles.values() for w in ws) * made.parallel_matches <= gpus + 1e-9


def sweep(trials: int = 100, parallel: int | None = None, **resources: object) -> Scenario:
    """The quickstart with a search."""
    base = quickstart(**resources).model_dump(mode="json")
    base["search"] = {
        "parameters": {"defenders.tsdf.tau": {"kind": "uniform", "low": 0.01, "high": 0.05}},
        "objectives": {"protection": {"metric": "protection"}},
        "trials": trials,
        "parallel": parallel,
    }
    return Scenario.model_validate(base)


HALF = 0.5
# machines (cpus, gpus) | cpus, gpus of a match, trials, most at once | trials side by side
TRIALS = [
    ([(1, 0)], 1, 0, 100, None, 1),
    ([(2, 0)], 1, 0, 100, None, 2),
    ([(2, 0)], 1, 0, 1, None, 1),
    ([(8, 0)], 1, 0, 100, 3, 3),
    ([(8, 0)], 1, 0, 2, 3, 2),
    ([(8, 0)], 3, 0, 100, None, 2),
    ([(1, 0)], HALF, 0, 100, None, 2),
    ([(3, 0), (3, 0)], 2, 0, 100, None, 2),  # 6 CPUs, but one is left over on each machine
    ([(4, 0), (1, 0)], 2, 0, 100, None, 2),
    ([(16, 1)], 1, 1, 100, None, 1),
    ([(16, 1)], 1, 0.25, 100, None, 4),
    ([(1, 1)], 1, 0.25, 100, None, 1),
    ([(4, 2)], 1, 2, 100, None, 1),
    ([(1, 1), (1, 1)], 1, 2, 100, None, 1),  # two roles on one machine, one on the other
    ([(4, 4)], 1, 4, 100, None, 1),
    ([(16, 9)], 1, 4, 100, None, 3),  # of four GPUs the roles use three
    ([(16, 8)], 1, 1, 100, None, 8),
    ([(16, 4), (16, 4)], 2, 1, 100, 5, 5),
    ([(64, 0), (2, 1)], 1, 1, 100, None, 1),  # roles want CPU and GPU on one machine
]


@pytest.mark.parametrize(("machines", "cpus", "gpus", "trials", "most", "parallel"), TRIALS)
def test_trials_side_by_side(
    machines: list[tuple[float, float]], cpus: float, gpus: float, trials: int, most: int | None, parallel: int
) -> None:
    made = trial_plan(sweep(trials, most, cpus_per_match=cpus, gpus_per_match=gpus), cluster(machines))
    assert made.parallel == parallel


def cluster(machines: list[tuple[float, float]]) -> Supply:
    nodes = tuple((float(cpus), float(gpus)) for cpus, gpus in machines)
    return Supply(sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes), nodes if len(nodes) > 1 else ())


def test_a_trial_on_cpus_is_one_process() -> None:
    made = trial_plan(sweep(cpus_per_match=2), Supply(8, 1))
    assert (made.bundles, made.roles) == (({"CPU": 2.0},), None)


def test_a_trial_on_a_gpu_reserves_its_roles_before_it_starts() -> None:
    made = trial_plan(sweep(cpus_per_match=1, gpus_per_match=1), Supply(8, 1))
    assert made.bundles == ({}, {"CPU": 1.0, "GPU": 1.0}), (
        "its own process takes nothing that its actors could wait for"
    )
    played = plan(quickstart(cpus_per_match=1, gpus_per_match=1), Supply(8, 1))
    assert made.roles == replace(played, parallel_matches=1, bundles=()), "the roles sit as in any match"


def test_a_trial_with_groups_has_actors_on_cpus_too() -> None:
    made = trial_plan(sweep(cpus_per_match=2, workers={"evaluator": 2}), Supply(4, 0))
    assert (made.bundles, made.strategy, made.parallel) == (({}, {"CPU": 1.0}, {"CPU": 1.0}), "STRICT_PACK", 2)
    assert made.roles is not None
    assert len(made.roles.roles["evaluator"]) == 2


@pytest.mark.parametrize(
    ("machines", "resources", "words"),
    [
        ([(2, 0)], {"cpus_per_match": 4}, ["resources.cpus_per_match", "4 asked for", "2 exist", "lower it"]),
        ([(2, 0)], {"gpus_per_match": 1}, ["resources.gpus_per_match", "1 asked for", "0 exist", "0 to play on CPUs"]),
        # The sum would do, but no machine alone.
        ([(2, 0), (2, 0)], {"cpus_per_match": 3}, ["a trial needs 1 x (3 CPUs)", "2 x (2 CPUs, 0 GPUs)"]),
        ([(1, 4), (64, 0)], {"cpus_per_match": 9, "gpus_per_match": 3}, ["3 x (3 CPUs, 1 GPU)", "(1 CPU, 4 GPUs)"]),
        ([(64, 0), (1, 1)], {"cpus_per_match": 2, "gpus_per_match": 1}, ["1 x (2 CPUs, 1 GPU)", "missing 1 CPU;"]),
    ],
)  # fmt: skip
def test_a_trial_that_fits_nowhere_is_refused(
    machines: list[tuple[float, float]], resources: dict[str, float], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        trial_plan(sweep(**resources), cluster(machines))  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


@settings(deadline=None)
@given(
    machines=st.lists(st.tuples(st.integers(1, 16), st.integers(0, 9)), min_size=1, max_size=4),
    want_cpus=st.sampled_from([0.25, 0.5, 1, 2, 3, 7]),
    want_gpus=st.sampled_from([0, 0.25, 0.5, 1, 2, 3, 4, 8]),
)
def test_all_trials_find_their_place_at_once(
    machines: list[tuple[float, float]], want_cpus: float, want_gpus: float
) -> None:
    """Bundles are laid on machines one by one, as they come: every trial that may run has its own."""
    supply = cluster(machines)
    try:
        made = trial_plan(sweep(cpus_per_match=want_cpus, gpus_per_match=want_gpus), supply)
    except UserError:
        return
    assert made.parallel >= 1
    free_cpus = [cpus for cpus, _ in supply.machines]
    free_gpus = [[1.0] * int(gpus) for _, gpus in supply.machines]
    for bundle in (bundle for _ in range(made.parallel) for bundle in made.bundles if bundle):
        cpus, gpus = bundle["CPU"], bundle.get("GPU", 0.0)
        # As Ray does: a part comes from one GPU, more are whole ones.
        part, count = (gpus, 1 if gpus else 0) if gpus < 1 else (1.0, int(gpus))
        assert gpus == part * count
        at = next(
            at
            for at, free in enumerate(free_gpus)
            if free_cpus[at] >= cpus - 1e-6 and sum(gpu >= part - 1e-6 for gpu in free) >= count
        )
        free_cpus[at] -= cpus
        for _ in range(count):
            gpu = next(i for i, left in enumerate(free_gpus[at]) if left >= part - 1e-6)
            free_gpus[at][gpu] -= part
    if made.roles is not None:
        assert sum(w.cpus for ws in made.roles.roles.values() for w in ws) <= want_cpus + 1e-9, (
            "the roles live inside what is reserved"
        )
