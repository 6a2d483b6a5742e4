"""Retraining: named draws, snapshots, starving, scratch, pools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tsdf_ray.attackers import Attacker, AttackerConfig
from tsdf_ray.attackers.adversarial import AdversarialConfig, Hardener
from tsdf_ray.attackers.retrain import Retrained, pool_of, snapshot_step
from tsdf_ray.crew import ALONE, Crew, Seat
from tsdf_ray.digest import array_digest
from tsdf_ray.errors import UserError
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.editor import Editor, EditorConfig
from tsdf_ray.generators.train_config import TrainConfig
from tsdf_ray.generators.training import train
from tsdf_ray.testing.crews import in_crew
from tsdf_ray.testing.linear import LinearFamily

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


def attacker(run_seed: int = 0, seat: Seat = ALONE, micro_batch: int | None = None, **retrain: object) -> Attacker:
    train = {"steps": 8, "batch": 4, "precision": "float32"}
    config = AttackerConfig.model_validate({"retrain": {"train": train} | retrain})
    return Attacker(config, run_seed, {}, SHARES, seat, micro_batch)


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


ADVERSARIAL = {"mode": "adversarial", "adversarial": {"epsilon": 0.1, "steps": 3, "share": 0.5}}


def test_adversarial_retraining_is_repeatable_and_another_training() -> None:
    one, two = (attacker(**ADVERSARIAL).retrain(1, [photos(8)], editor()) for _ in range(2))
    plain = attacker().retrain(1, [photos(8)], editor())
    assert array_digest(one.tensors) == array_digest(two.tensors) != array_digest(plain.tensors)
    assert (one.steps, one.photos, one.protected) == (8, 32, 16)
    assert (plain.photos, plain.protected) == (32, 0)
    assert set(one.tensors) == set(plain.tensors)
    assert [(work.what, work.photos) for work in one.work] == [("retrain adversarial", 32)]
    assert one.work[0].seconds > 0


def test_workers_count_what_all_of_them_protected() -> None:
    """A share of every micro-batch, one photo at least: 2 of 3 and 1 of 1."""
    families = [editor(), editor()]

    def play(crew: Crew) -> Retrained:
        return attacker(0, Seat(crew), 3, **ADVERSARIAL).retrain(1, [photos(8)], families[crew.rank])

    one, two = in_crew(2, play)
    assert array_digest(one.tensors) == array_digest(two.tensors)
    assert (one.photos, one.protected) == (two.photos, two.protected) == (32, 8 * 3)
    assert one.losses == two.losses


def test_memory_that_ran_out_halves_the_micro_batches() -> None:
    def digest(halvings: int, micro_batch: int | None) -> str:
        seat = Seat(halvings=halvings)
        return array_digest(attacker(0, seat, micro_batch).retrain(1, [photos(8)], editor()).tensors)

    assert digest(1, None) == digest(0, 2) != digest(0, None)
    assert digest(1, 3) == digest(0, 2)
    with pytest.raises(UserError, match="out of memory with a micro-batch of one photo"):
        digest(2, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["finetune", "scratch", "adversarial"])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_a_gpu_trains_the_same_generator_and_is_left_empty(mode: str, micro_batch: int | None) -> None:
    """Up to rounding: Adam turns small differences of tiny gradients into steps, so few steps at a small rate."""
    training = {"steps": 2, "batch": 4, "precision": "float32", "learning_rate": 1e-4}

    def play(seat: Seat) -> tuple[Retrained, Editor]:
        family = editor()
        return attacker(0, seat, micro_batch, mode=mode, train=training).retrain(1, [photos(8)], family), family

    there = Seat(device="cuda", shares_device=True)
    play(there)  # cuBLAS keeps a workspace from its first use on
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    (here, _), (found, family) = play(ALONE), play(there)
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before
    assert all(not weight.is_cuda for part in family.parts.values() for weight in part.parameters())
    assert found.losses == pytest.approx(here.losses, rel=1e-2, abs=1e-3)
    for name, value in here.tensors.items():
        np.testing.assert_allclose(found.tensors[name], value, atol=1e-3, err_msg=name)


def _change(family: Editor, x_BCHW: torch.Tensor, moved_BCHW: torch.Tensor, c_BA: torch.Tensor) -> float:
    with torch.no_grad():
        return float((family.edit(moved_BCHW, c_BA) - family.edit(x_BCHW, c_BA)).square().mean())


def test_fresh_protection_stays_in_its_budget_and_breaks_the_edit_more_than_noise() -> None:
    family = editor()
    with torch.no_grad():
        family.generator.head.weight.mul_(10.0)
    x_BCHW, c_BA = photos(8).images() * 0.8, photos(8, 1).labels()
    config = AdversarialConfig(epsilon=0.1, steps=5, share=0.75)
    hardener = Hardener(family, config)
    moved_BCHW = hardener(x_BCHW, c_BA, torch.Generator().manual_seed(1))
    assert torch.equal(moved_BCHW[6:], x_BCHW[6:])
    assert float((moved_BCHW - x_BCHW).abs().max()) <= 0.1 + 1e-6
    assert config.count(8) == 6
    assert not moved_BCHW.requires_grad
    noise = 0.1 * torch.rand(x_BCHW.shape, generator=torch.Generator().manual_seed(2)).mul(2).sub(1).sign()
    noise[6:] = 0
    assert _change(family, x_BCHW, moved_BCHW, c_BA) > 1.1 * _change(family, x_BCHW, x_BCHW + noise, c_BA)
    assert all(parameter.grad is None for parameter in family.generator.parameters())


def test_sign_steps_reach_the_budget_where_the_generator_is_linear() -> None:
    """G multiplies by 1, so sign steps from w grow it to the budget: |G(x') - G(x)| = epsilon at every entry."""
    config = AdversarialConfig(epsilon=0.1, steps=2, step_size=0.1, share=1.0)
    x_BCHW, c_BA = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4)
    moved_BCHW = Hardener(LinearFamily(), config)(x_BCHW, c_BA, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved_BCHW.abs(), torch.full_like(x_BCHW, 0.1))


def test_every_loss_sees_the_photos_that_were_put_in_place() -> None:
    seen: list[torch.Tensor] = []

    class Seeing(Editor):
        def generator_loss(self, x_BCHW: torch.Tensor, *args: Any, **more: Any) -> dict[str, torch.Tensor]:
            seen.append(x_BCHW)
            return super().generator_loss(x_BCHW, *args, **more)

        def discriminator_loss(self, x_BCHW: torch.Tensor, *args: Any, **more: Any) -> dict[str, torch.Tensor]:
            seen.append(x_BCHW)
            return super().discriminator_loss(x_BCHW, *args, **more)

    config = TrainConfig(steps=2, batch=4, precision="float32")
    train(Seeing(editor().config), photos(8), config, 0, (), change=lambda x, c, rng: torch.full_like(x, 0.25))
    assert len(seen) == 4
    assert all(bool((x == 0.25).all()) for x in seen)


def test_a_discriminator_that_came_fresh_is_warmed_up_and_the_work_says_so() -> None:
    families = editor(), editor(), editor()
    for family in families[1:]:
        family.fresh_parts = ("discriminator",)
    known, fresh = (attacker(warm_up=5).retrain(1, [photos(8)], family) for family in families[:2])
    assert [work.what for work in known.work] == ["retrain finetune"]
    assert [(work.what, work.photos) for work in fresh.work] == [
        ("retrain finetune after a warm-up of the fresh discriminator", 32 + 5 * 4)
    ]
    assert array_digest(known.tensors) != array_digest(fresh.tensors)
    without = attacker(warm_up=0).retrain(1, [photos(8)], families[2])
    assert array_digest(without.tensors) == array_digest(known.tensors)


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
