"""The plan is pure: a table of supply and demand, and invariants of every plan it makes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsdf_ray.errors import UserError
from tsdf_ray.game.plan import ROLES, Supply, plan
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
    assert made.cpus_per_role * len(ROLES) * made.parallel_matches <= cpus + 1e-9
    assert made.gpus_per_role * len(ROLES) * made.parallel_matches <= gpus + 1e-9
