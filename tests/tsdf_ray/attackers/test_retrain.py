"""Retraining: named draws, snapshots, starving, scratch, pools."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsdf_ray.attackers import Attacker, AttackerConfig
from tsdf_ray.attackers.retrain import pool_of, snapshot_step
from tsdf_ray.digest import array_digest
from tsdf_ray.errors import UserError
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.editor import Editor, EditorConfig

SHARES = (0.0, 0.25, 0.5, 1.0)


def editor(seed: int = 0) -> Editor:
    """A tiny one with weights of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Editor(
            EditorConfig(
                attributes=("Black_Hair", "Blond_Hair", "Male"),
                widths=(4, 4),
                blocks=1,
                discriminator_widths=(4, 4),
                classifier_width=4,
            )
        )


def photos(count: int, seed: int = 0, name: str = "p") -> FaceSet:
    rng = np.random.default_rng(seed)
    labels = np.zeros((count, 3), np.uint8)
    labels[np.arange(count), rng.integers(0, 2, count)] = 1
    labels[:, 2] = rng.integers(0, 2, count)
    pixels = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return FaceSet(pixels, labels, ("Black_Hair", "Blond_Hair", "Male"), tuple(f"{name}{i}" for i in range(count)))


def attacker(run_seed: int = 0, **retrain: object) -> Attacker:
    train = {"steps": 8, "batch": 4, "precision": "float32"}
    config = AttackerConfig.model_validate({"retrain": {"train": train} | retrain})
    return Attacker(config, run_seed, {}, SHARES)


def test_a_step_issued_twice_gives_the_same_generator() -> None:
    one = attacker().retrain(2, [photos(8)], editor())
    state = torch.random.get_rng_state()
    torch.manual_seed(99)  # whatever others drew in between
    two = attacker().retrain(2, [photos(8)], editor())
    torch.random.set_rng_state(state)
    assert array_digest(one.tensors) == array_digest(two.tensors)
    assert one.steps == 8
    assert one.reason is None
    assert set(one.losses) >= {"d_real", "g_cycle"}


def test_rounds_and_seeds_draw_differently() -> None:
    digests = {
        array_digest(attacker(seed).retrain(r, [photos(8)], editor()).tensors) for seed, r in ((0, 1), (0, 2), (1, 1))
    }
    assert len(digests) == 3


def test_snapshots_lie_between_the_old_and_the_new_generator() -> None:
    family = editor()
    before = family.tensors(("generator",))
    after = attacker().retrain(1, [photos(8)], family)
    assert sorted(after.snapshots) == [0.25, 0.5]
    assert [after.step_at(share) for share in SHARES] == [0, 2, 4, 8]
    end = {name: value for name, value in after.tensors.items() if name.startswith("generator.")}

    def moved(tensors: dict[str, np.ndarray]) -> float:
        return sum(float(np.abs(tensors[name] - before[name]).sum()) for name in before)

    assert 0 < moved(dict(after.snapshots[0.25])) < moved(dict(after.snapshots[0.5])) < moved(end)


@pytest.mark.parametrize(
    ("retrain", "words"), [({}, "3 usable photos, fewer than a batch of 4"), ({"mode": "none"}, "none")]
)
def test_a_generator_that_stays_says_why(retrain: dict[str, object], words: str) -> None:
    family = editor()
    digest = array_digest(family.tensors())
    after = attacker(**retrain).retrain(1, [photos(3)], family)
    assert array_digest(after.tensors) == digest
    assert (after.steps, dict(after.snapshots)) == (0, {})
    assert words in str(after.reason)


def test_an_empty_round_is_survived() -> None:
    assert attacker().retrain(1, [photos(0)], editor()).reason == "0 usable photos, fewer than a batch of 4"


def test_scratch_forgets_the_last_generator_but_not_the_frozen_parts() -> None:
    state = torch.random.get_rng_state()
    families = editor(1), editor(2)
    families[1].load(families[0].tensors(("classifier",)))
    one, two = (attacker(mode="scratch").retrain(1, [photos(8)], family) for family in families)
    assert array_digest(one.tensors) == array_digest(two.tensors)
    assert torch.equal(state, torch.random.get_rng_state())
    classifier = families[0].tensors(("classifier",))
    for name, value in classifier.items():
        np.testing.assert_array_equal(one.tensors[name], value)


def test_a_pool_of_rounds_is_one_set() -> None:
    together = pool_of([photos(3, 1, "a"), photos(0, 2, "b"), photos(2, 3, "c")])
    assert together.ids == ("a0", "a1", "a2", "c0", "c1")
    # Too few in each round, enough together.
    assert attacker().retrain(3, [photos(3, 1, "a"), photos(2, 3, "c")], editor()).steps == 8
    other = FaceSet(np.zeros((1, 3, 64, 64), np.uint8), np.zeros((1, 3), np.uint8), together.attributes, ("x",))
    with pytest.raises(UserError, match="64 px"):
        pool_of([photos(1), other])


def test_shares_become_whole_steps() -> None:
    assert [snapshot_step(share, 100) for share in (0.0, 0.1, 0.25, 0.5, 1.0)] == [0, 10, 25, 50, 100]
    assert [snapshot_step(share, 3) for share in (0.1, 0.25, 0.5)] == [0, 1, 2]
