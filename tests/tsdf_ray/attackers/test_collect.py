"""Which photos are collected: pure, disjoint over rounds, the stated share protected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tsdf_ray.attackers import CollectConfig, check_supply, choose, own_photos
from tsdf_ray.errors import UserError


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 60), st.floats(0, 1), st.integers(0, 2**31 - 1))
def test_rounds_are_disjoint_and_repeatable(photos: int, rounds: int, spare: int, share: float, seed: int) -> None:
    """Half of the spare photos are the attacker's own: no round publishes them."""
    config = CollectConfig(photos=photos, protected=share, own=spare // 2)
    available = rounds * photos + spare
    choices = [choose(config, seed, r, available) for r in range(1, rounds + 1)]
    together = np.concatenate([choice.index_N for choice in choices])
    assert len(set(together.tolist())) == rounds * photos
    own = own_photos(config, seed, available)
    assert len(set(own.tolist())) == spare // 2
    assert not set(own.tolist()) & set(together.tolist())
    assert together.min() >= 0
    assert together.max() < available
    for r, choice in enumerate(choices, start=1):
        assert abs(int(choice.protected_N.sum()) - share * photos) <= 0.5
        again = choose(config, seed, r, available)
        np.testing.assert_array_equal(choice.index_N, again.index_N)
        np.testing.assert_array_equal(choice.protected_N, again.protected_N)


def test_attackers_of_one_seed_collect_the_same_photos_and_seeds_differ() -> None:
    half, full = CollectConfig(photos=20, protected=0.5), CollectConfig(photos=20)
    np.testing.assert_array_equal(choose(half, 7, 2, 100).index_N, choose(full, 7, 2, 100).index_N)
    assert choose(full, 7, 1, 100).index_N.tolist() != choose(full, 8, 1, 100).index_N.tolist()


def test_an_exhausted_split_is_refused_before_play() -> None:
    check_supply(CollectConfig(photos=30), 3, 90)
    with pytest.raises(UserError, match=r"collect\.photos: 3 rounds of 30 photos need 90, .* has 89"):
        check_supply(CollectConfig(photos=30), 3, 89)
    with pytest.raises(UserError, match=r"lower collect\.photos or rounds"):
        choose(CollectConfig(photos=30), 0, 4, 100)
    check_supply(CollectConfig(photos=30, own=10), 3, 100)
    with pytest.raises(UserError, match=r"30 photos and 11 of its own need 101, .* has 100"):
        check_supply(CollectConfig(photos=30, own=11), 3, 100)


@pytest.mark.parametrize("wrong", [{"photos": 0}, {"protected": 1.1}, {"pool": "all"}, {"photo": 3}])
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CollectConfig.model_validate(wrong)
