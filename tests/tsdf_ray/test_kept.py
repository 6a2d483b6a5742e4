"""What a process keeps: nothing unless asked to, never more than allowed, and never the wrong thing."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tsdf_ray import api
from tsdf_ray.kept import KEPT, Kept
from tsdf_ray.scenario import Scenario


def test_nothing_is_kept_by_default() -> None:
    """A plain race computes everything itself."""
    kept = Kept()
    made = [kept.get({"a": 1}, object, lambda _: 1) for _ in range(2)]
    assert made[0] is not made[1]
    assert not KEPT.on


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=40))
def test_kept_results_are_those_of_their_key_and_fit(asked: list[tuple[int, int]]) -> None:
    """Whatever is asked in whatever order: the right result, and at most `most_bytes` of them held."""
    kept = Kept(8)
    for key, size in asked:
        # A key has one size, as a result has.
        value = kept.get({"key": key, "size": size}, lambda key=key, size=size: (key, size), lambda made: made[1])
        assert value == (key, size)
        assert sum(held for _, held in kept._held.values()) <= 8


def test_a_race_with_kept_results_equals_one_without(tmp_path: Path) -> None:
    """Two races of the same defence against attackers that differ: the second takes what the first learned, and both
    have the tables of races that computed all themselves."""
    changes = (
        "faces.counts={defender: 8, attacker: 16, evaluation: 6}",
        "attackers.mtcnn.collect.photos=8",
        "attackers.mtcnn.retrain.train={steps: 2, batch: 4}",
        "rounds=1",
    )
    games = [
        Scenario.load("smoke", (*changes, f"attackers.mtcnn.retrain.train.learning_rate={r}")) for r in (1e-4, 4e-4)
    ]
    plain = [api.play(g, tmp_path / f"plain-{i}", executor="inprocess", report=False) for i, g in enumerate(games)]
    hits = KEPT.hits
    KEPT.resize(256 << 20)
    try:
        kept = [api.play(g, tmp_path / f"kept-{i}", executor="inprocess", report=False) for i, g in enumerate(games)]
    finally:
        KEPT.resize(0)
    # Learned and published in round 1, and the clean forgeries of G_0.
    assert KEPT.hits - hits >= 3
    for one, other in zip(plain, kept, strict=True):
        assert one.images.equals(other.images)
