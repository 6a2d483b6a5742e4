"""Purification: order and places, the learned denoiser, the estimate of what all photos share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tsdf_ray.attackers import Attacker, AttackerConfig, DenoiseStep, Purifier, PurifyConfig, SubtractStep, fit
from tsdf_ray.attackers.denoiser import denoise, train_denoiser
from tsdf_ray.digest import array_digest
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.testing.tiny import tiny_faces

LEARNED = DenoiseStep(steps=80, batch=4, width=8, layers=3, noise=0.2, learning_rate=5e-3)
OWN, OTHERS = tiny_faces(12, seed=1), tiny_faces(40, seed=2)


def config(**places: Any) -> PurifyConfig:
    return PurifyConfig.model_validate(places)


def w(seed: int = 0, steps: int = 8) -> np.ndarray:
    """A universal perturbation: +-`steps` steps of the 8-bit grid at every entry."""
    signs = np.random.default_rng(seed).integers(0, 2, (1, 3, 32, 32)) * 2 - 1
    return steps * signs


def protected(photos: FaceSet, added: np.ndarray) -> FaceSet:
    """Photos pulled away from black and white, so that nothing is clamped."""
    pixels = (photos.pixels_BCHW // 2 + 64).astype(int) + added
    return photos.with_pixels(pixels.astype(np.uint8))


def error(photos: FaceSet, wanted: FaceSet) -> float:
    return float(np.abs(photos.pixels_BCHW.astype(int) - wanted.pixels_BCHW).mean())


def test_steps_run_in_order_at_their_own_place() -> None:
    blur, jpeg = {"kind": "blur", "sigma": 2.0}, {"kind": "jpeg", "quality": 30}
    purifier = Purifier(config(prepare=[blur, jpeg], train=[jpeg, blur]), {})
    one, other, none = (purifier(place, OTHERS) for place in ("prepare", "train", "inference"))
    assert one.ids == OTHERS.ids
    assert none is OTHERS
    assert len({one.digest, other.digest, OTHERS.digest}) == 3


def test_an_untrained_denoiser_changes_nothing() -> None:
    untouched = DenoiseStep(steps=1, batch=1, width=4, layers=2, learning_rate=1e-30)
    weights = train_denoiser(untouched, OWN, 0)
    np.testing.assert_array_equal(denoise(untouched, weights, OTHERS).pixels_BCHW, OTHERS.pixels_BCHW)


def test_the_denoiser_takes_noise_off_photos_and_perturbations_it_has_not_seen() -> None:
    weights = train_denoiser(LEARNED, OWN, 3)
    clean, noisy = protected(OTHERS, 0 * w()), protected(OTHERS, w())
    assert error(noisy, clean) == 8
    assert error(denoise(LEARNED, weights, noisy), clean) < 6


def test_a_denoiser_is_named_by_seed_and_config_and_leaves_the_global_generator_alone() -> None:
    quick = LEARNED.model_copy(update={"steps": 3})
    state = torch.random.get_rng_state()
    one = array_digest(train_denoiser(quick, OWN, 0))
    torch.manual_seed(5)
    two = array_digest(train_denoiser(quick, OWN, 0))
    torch.random.set_rng_state(state)
    others = [train_denoiser(quick, OWN, 1), train_denoiser(quick.model_copy(update={"noise": 0.3}), OWN, 0)]
    assert one == two
    assert len({one, *(array_digest(other) for other in others)}) == 3


def test_the_estimate_is_what_all_photos_share_less_what_the_denoiser_keeps() -> None:
    """By hand: flat photos 100 and 140 with +6 on one pixel in both. A 3 x 3 median takes the pixel away, so the mean
    residual is 6 there and 0 elsewhere, and subtracting it leaves the flat photos."""
    pixels = np.full((2, 3, 32, 32), 100, np.uint8)
    pixels[1] = 140
    flat = tiny_faces(2).with_pixels(pixels.copy())
    pixels[:, :, 10, 10] += 6
    marked = flat.with_pixels(pixels)
    steps = config(inference=[{"kind": "subtract", "denoised": {"kind": "median", "radius": 1}}])
    fitted = fit(steps, OWN.take([]), marked, 0, {})
    (tensors,) = fitted.values()
    wanted = np.zeros((1, 3, 32, 32), np.float32)
    wanted[:, :, 10, 10] = 6 / 127.5
    np.testing.assert_allclose(tensors["estimate"], wanted, atol=1e-7)
    np.testing.assert_array_equal(Purifier(steps, fitted)("inference", marked).pixels_BCHW, flat.pixels_BCHW)


def test_subtraction_washes_a_universal_perturbation_out_of_other_photos() -> None:
    steps = config(inference=[SubtractStep()])
    fitted = fit(steps, OWN, protected(OTHERS, w()), 0, {})
    fresh = tiny_faces(6, seed=9)
    washed = Purifier(steps, fitted)("inference", protected(fresh, w()))
    clean = protected(fresh, 0 * w())
    assert error(washed, clean) < 0.5 * error(protected(fresh, w()), clean)


def test_the_clean_side_of_a_comparison_has_nothing_subtracted() -> None:
    steps = config(inference=[SubtractStep(), {"kind": "median"}])
    fitted = fit(steps, OWN, protected(OTHERS, w()), 0, {})
    median = Purifier(config(inference=[{"kind": "median"}]), {})("inference", OTHERS)
    assert Purifier(steps, fitted)("inference", OTHERS, protected=False).digest == median.digest
    assert Purifier(steps, fitted)("inference", OTHERS).digest != median.digest


def test_nothing_collected_gives_nothing_to_subtract() -> None:
    steps = config(inference=[SubtractStep()])
    fitted = fit(steps, OWN, OTHERS.take([]), 0, {})
    assert Purifier(steps, fitted)("inference", OTHERS).digest == OTHERS.digest


def _attacker() -> Attacker:
    quick = LEARNED.model_copy(update={"steps": 3}).model_dump()
    data = {
        "collect": {"own": 12},
        "purify": {"prepare": [{"kind": "subtract", "denoised": quick}], "train": [quick], "inference": [quick]},
    }
    return Attacker(AttackerConfig.model_validate(data), 4, {})


def test_a_study_trains_once_per_match_and_twice_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    trainings: list[int] = []

    def counted(step: DenoiseStep, own: FaceSet, run_seed: int) -> Any:
        trainings.append(run_seed)
        return train_denoiser(step, own, run_seed)

    monkeypatch.setattr("tsdf_ray.attackers.purify.train_denoiser", counted)
    attacker = _attacker()
    first = attacker.study(1, OWN, protected(OTHERS, w()))
    attacker.study(2, OWN, protected(OTHERS, w(1)))
    again = attacker.study(1, OWN, protected(OTHERS, w()))
    assert trainings == [4]  # one config at three places, three studies
    anew = _attacker().study(1, OWN, protected(OTHERS, w()))
    for other in (again, anew):
        assert {key: array_digest(dict(value)) for key, value in other.fitted.items()} == {
            key: array_digest(dict(value)) for key, value in first.fitted.items()
        }


def test_purified_photos_are_prepared_and_trained_on() -> None:
    """Three levels before preparing, then two: what is trained on is black and white."""
    steps = {"prepare": [{"kind": "bit_depth", "bits": 2}], "train": [{"kind": "bit_depth", "bits": 1}]}
    attacker = Attacker(AttackerConfig.model_validate({"purify": steps}), 0, {})
    prepared = attacker.prepare(1, OTHERS, attacker.study(1, OWN.take([]), OTHERS))
    assert set(np.unique(prepared.photos.pixels_BCHW)) == {0, 255}
    wanted = np.where((OTHERS.pixels_BCHW / 85).round() >= 2, 255, 0)
    np.testing.assert_array_equal(prepared.photos.pixels_BCHW, wanted)


def test_work_says_what_was_done_to_how_many_photos() -> None:
    attacker = _attacker()
    studied = attacker.study(1, OWN, OTHERS)
    later = attacker.study(2, OWN, OTHERS)
    prepared = attacker.prepare(1, OTHERS, studied)
    told = [[(work.what, work.photos) for work in part.work] for part in (studied, later, prepared)]
    assert told[0] == [("learn denoise", 12), ("estimate", 40)]
    assert told[1] == [("estimate", 40)]
    assert told[2] == [("purify.prepare subtract", 40), ("purify.train denoise", 40)]
    assert all(work.seconds > 0 for work in (*studied.work, *prepared.work))
