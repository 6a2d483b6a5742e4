"""The training loop of pretraining and retraining: exact for a seed, snapshots, failures with a name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tsdf_ray.digest import array_digest
from tsdf_ray.errors import MatchFailed, UserError
from tsdf_ray.generators import Family, StarGAN, StarGANConfig, TrainConfig, Trainer, fresh_family, restart, train
from tsdf_ray.testing.tiny import tiny_editor, tiny_faces

QUICK = TrainConfig(steps=4, batch=4, decay_share=0.0)


def tiny_stargan() -> Family:
    config = StarGANConfig(
        attributes=tiny_faces(1).attributes,
        width=4,
        blocks=1,
        image_size=32,
        discriminator_width=4,
        discriminator_layers=3,
    )
    return fresh_family(StarGAN, config, 0)


@pytest.mark.parametrize("make", [lambda: tiny_editor(0), tiny_stargan], ids=["editor", "stargan"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_equal_seeds_give_bit_identical_weights(make: object, precision: str) -> None:
    faces = tiny_faces(12)
    config = QUICK.model_copy(update={"precision": precision, "discriminator_steps": 2, "ema_decay": 0.5})

    def digest(seed: int, name: str) -> str:
        family = make()  # type: ignore[operator]
        torch.rand(3)  # the global generator must not matter
        train(family, faces, config, seed, (name, 1))
        return array_digest(family.tensors())

    first = digest(0, "a")
    assert digest(0, "a") == first
    assert digest(1, "a") != first
    assert digest(0, "b") != first


def test_snapshots_are_the_generator_at_those_steps() -> None:
    faces = tiny_faces(8)
    family = tiny_editor(1)
    before = family.tensors(("generator",))
    result = train(family, faces, QUICK, 0, (), snapshots=(0, 2, 4))
    assert sorted(result.snapshots) == [0, 2, 4]
    assert result.steps == 4
    assert array_digest(result.snapshots[0]) == array_digest(before)
    assert array_digest(result.snapshots[4]) == array_digest(family.tensors(("generator",)))
    short = tiny_editor(1)
    train(short, faces, QUICK.model_copy(update={"steps": 2}), 0, ())
    assert array_digest(result.snapshots[2]) == array_digest(short.tensors(("generator",)))


def test_training_moves_what_is_trained_and_nothing_else() -> None:
    family = tiny_editor(2)
    before = family.tensors()
    train(family, tiny_faces(8), QUICK, 0, ())
    after = family.tensors()
    for name, value in before.items():
        assert np.array_equal(value, after[name]) == name.startswith("classifier."), name
    assert all(not module.training for module in family.parts.values())


def test_a_tiny_family_overfits_a_few_photos() -> None:
    family = tiny_editor(3)
    curve: list[float] = []

    def note(step: int, terms: dict[str, float]) -> None:
        assert step == len(curve) + 1
        curve.append(terms["g_cycle"] + terms["g_identity"])

    config = TrainConfig(steps=60, batch=8, learning_rate=3e-3, precision="float32", flips=False)
    result = train(family, tiny_faces(8), config, 0, (), on_step=note)
    assert np.mean(curve[-5:]) < 0.5 * np.mean(curve[:5])
    assert result.losses["g_cycle"] + result.losses["g_identity"] == pytest.approx(np.mean(curve))
    assert result.seconds > 0


def test_moving_average_is_the_result_and_follows_its_recursion() -> None:
    faces = tiny_faces(8)
    config = QUICK.model_copy(update={"steps": 3, "ema_decay": 0.15, "precision": "float32"})
    family, raw = tiny_editor(4), tiny_editor(4)
    train(family, faces, config, 0, ())
    steps = train(raw, faces, config.model_copy(update={"ema_decay": None}), 0, (), snapshots=(0, 1, 2, 3)).snapshots
    name = "generator.head.weight"
    expected = steps[0][name]
    for step in range(3):
        decay = min(0.15, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * steps[step + 1][name]
    np.testing.assert_allclose(family.tensors()[name], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("part", "term"), [("discriminator", "d_real"), ("generator", "d_fake")])
def test_a_loss_that_is_not_finite_ends_the_match_with_its_name(part: str, term: str) -> None:
    family = tiny_editor(5)
    with torch.no_grad():
        next(family.parts[part].parameters()).fill_(float("nan"))
    with pytest.raises(MatchFailed, match=rf"editor: loss term {term} became nan at step 0"):
        train(family, tiny_faces(8), QUICK, 0, ())


def test_step_sizes_fall_to_zero_over_the_last_share_of_the_steps() -> None:
    config = TrainConfig(steps=8, batch=4, learning_rate=1e-3, discriminator_rate=0.5, decay_share=0.5)
    trainer = Trainer(tiny_editor(0), tiny_faces(8), config, 0, ())
    rates = []
    for step in range(8):
        trainer.step(step)
        rates.append([o.param_groups[0]["lr"] for o in (trainer.generator_optimiser, trainer.discriminator_optimiser)])
    generator, discriminator = zip(*rates, strict=True)
    assert generator == pytest.approx([1e-3] * 5 + [0.75e-3, 0.5e-3, 0.25e-3])
    assert discriminator == pytest.approx([rate / 2 for rate in generator])


def test_a_warm_up_trains_the_discriminator_alone() -> None:
    family = tiny_editor(5)
    before = family.tensors()
    train(family, tiny_faces(8), QUICK.model_copy(update={"steps": 0}), 0, (), warm_up=3)
    moved = {name for name, value in family.tensors().items() if not np.array_equal(value, before[name])}
    assert moved
    assert all(name.startswith("discriminator.") for name in moved)
    cold, warm = tiny_editor(5), tiny_editor(5)
    train(cold, tiny_faces(8), QUICK, 0, ())
    train(warm, tiny_faces(8), QUICK, 0, (), warm_up=3)
    assert array_digest(cold.tensors(("generator",))) != array_digest(warm.tensors(("generator",)))


def test_too_few_photos_and_other_attributes_are_refused() -> None:
    with pytest.raises(UserError, match="3 photos are fewer than one batch of 4"):
        train(tiny_editor(6), tiny_faces(3), QUICK, 0, ())
    faces = tiny_faces(4)
    other = type(faces)(faces.pixels_BCHW, faces.labels_BA[:, :1], ("Male",), faces.ids)
    with pytest.raises(UserError, match="Male"):
        train(tiny_editor(6), other, QUICK, 0, ())


def test_read_only_photos_are_fine() -> None:
    faces = tiny_faces(8)
    faces.pixels_BCHW.flags.writeable = False
    faces.labels_BA.flags.writeable = False
    assert train(tiny_editor(7), faces, QUICK, 0, ()).steps == 4


def test_targets_differ_from_own_labels_and_flips_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = tiny_faces(16)
    trainer = Trainer(tiny_editor(8), faces, TrainConfig(batch=16), 0, ())
    x, own, target = trainer._draw(torch.Generator().manual_seed(0), 1)
    assert bool((own != target).any(1).all())
    originals = faces.images()
    same = [(originals == photo).all((1, 2, 3)).any() for photo in x]
    mirrored = [(originals.flip(-1) == photo).all((1, 2, 3)).any() for photo in x]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert 2 <= sum(map(bool, mirrored)) <= 14


def test_balance_draws_rare_label_combinations_more_often() -> None:
    faces = tiny_faces(40)
    labels = np.tile(np.array([[1, 0, 0, 0]], np.uint8), (40, 1))
    labels[:4] = [0, 1, 0, 1]
    faces = type(faces)(faces.pixels_BCHW, labels, faces.attributes, faces.ids)

    def share(balance: float) -> float:
        trainer = Trainer(tiny_editor(9), faces, TrainConfig(batch=2, balance=balance), 0, ())
        own = torch.cat([trainer._draw(torch.Generator().manual_seed(i), 1)[1] for i in range(200)])
        return float(own[:, 1].mean())

    assert share(0.0) == pytest.approx(0.1, abs=0.05)
    assert share(1.0) == pytest.approx(0.5, abs=0.08)


def test_restart_forgets_the_weights_but_not_the_frozen_part() -> None:
    family = tiny_editor(10)
    fresh = restart(family, 0, "attacker")
    old, new = family.tensors(), fresh.tensors()
    assert all(np.array_equal(old[n], new[n]) for n in old if n.startswith("classifier."))
    assert not np.array_equal(old["generator.stem.weight"], new["generator.stem.weight"])
    assert not np.array_equal(old["discriminator.head.weight"], new["discriminator.head.weight"])


@pytest.mark.parametrize("wrong", [{"betas": (0.5, 1.0)}, {"ema_decay": 1.0}, {"batch": 0}, {"precision": "float16"}])
def test_wrong_configs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig.model_validate(wrong)
