"""Choosing photos: named randomness, disjoint people, counts; and the config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tsdf_ray.faces import Counts, FacesConfig, load_splits
from tsdf_ray.faces.splits import divide

MakeParquet = Callable[..., Path]


def config(path: Path, **changes: object) -> FacesConfig:
    counts = Counts(defender=10, attacker=12, evaluation=9)
    return FacesConfig(**({"source": "parquet", "path": path, "size": 32, "counts": counts} | changes))


def test_equal_seeds_give_equal_sets_and_other_seeds_others(make_parquet: MakeParquet) -> None:
    path = make_parquet(split=None)
    first, again, other = (load_splits(config(path), seed) for seed in (4, 4, 5))
    for split in ("defender", "attacker", "evaluation"):
        assert getattr(first, split).digest == getattr(again, split).digest
        assert getattr(first, split).ids != getattr(other, split).ids


def test_global_random_state_plays_no_part(make_parquet: MakeParquet) -> None:
    path = make_parquet()
    np.random.seed(1)
    first = load_splits(config(path), 0).attacker.digest
    np.random.seed(2)
    assert load_splits(config(path), 0).attacker.digest == first


def test_a_smaller_count_takes_the_first_of_the_larger(make_parquet: MakeParquet) -> None:
    """With given splits, sets of other sizes share their photos: runs of other sizes stay comparable."""
    path = make_parquet()
    large = load_splits(config(path), 0).attacker.ids
    small = load_splits(config(path, counts=Counts(defender=3, attacker=5, evaluation=3)), 0).attacker.ids
    assert small == large[:5]


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=40),
    shares=st.tuples(st.integers(1, 50), st.integers(1, 50), st.integers(1, 50)),
    seed=st.integers(0, 2**32),
)
def test_divide_gives_every_person_to_one_part_near_its_share(
    sizes: list[int], shares: tuple[int, int, int], seed: int
) -> None:
    people = [f"person {p}" for p, size in enumerate(sizes) for _ in range(size)]
    parts = dict(zip("abc", shares, strict=True))
    side = divide(people, parts, np.random.default_rng(seed))
    assert side.keys() == set(people)
    photos = Counter(side[person] for person in people)
    for part, share in parts.items():
        target = len(people) * share / sum(shares)
        assert photos[part] > target - max(sizes)  # the part that lacks most is served first


@settings(max_examples=200, deadline=None)
@given(
    shares=st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30)),
    spare=st.integers(0, 20),
    seed=st.integers(0, 2**32),
)
def test_divide_satisfies_every_count_when_people_have_one_photo(
    shares: tuple[int, int, int], spare: int, seed: int
) -> None:
    people = [str(p) for p in range(sum(shares) + spare)]
    parts = dict(zip("abc", shares, strict=True))
    photos = Counter(divide(people, parts, np.random.default_rng(seed)).values())
    assert all(photos[part] >= share for part, share in parts.items())


@pytest.mark.parametrize(
    "bad",
    [
        {"source": "celeba"},
        {"source": "sample", "path": "x"},
        {"source": "web"},
        {"size": 8},
        {"size": 4096},
        {"crop": 0},
        {"counts": {"defender": 0}},
        {"counts": {"defenders": 5}},
        {"on_bad": "ignore"},
        {"attributes": ["Male", "Male"]},
        {"sizes": 128},
    ],
    ids=str,
)
def test_bad_configs_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FacesConfig.model_validate(bad)


def test_the_config_is_frozen_and_survives_json() -> None:
    made = FacesConfig(source="folder", path=Path("photos"), crop=170, counts=Counts(attacker=7))
    assert FacesConfig.model_validate_json(made.model_dump_json()) == made
    with pytest.raises(ValidationError):
        made.size = 64
