"""Distances of sets: against scipy, a double loop, normal distributions in closed form, and a bootstrap by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.kid import poly_mmd

from tsdf_ray.metrics.sets import LEAST, SetPairs, frechet, frechet_least, kernel, set_measures

Floats = np.ndarray


def sets(photos: int, edits: int, width: int, seed: int = 0) -> tuple[Floats, Floats, np.ndarray]:
    """Features of forgery pairs: photos differ more than edits, the second set is scaled, turned and moved."""
    rng = np.random.default_rng(seed)
    person = rng.normal(size=(photos, width)).repeat(edits, 0)
    y = person + 0.3 * rng.normal(size=(photos * edits, width))
    x = 1.2 * y + 0.5 * rng.normal(size=y.shape) + np.linspace(0, 0.6, width)
    return x, y, np.arange(photos).repeat(edits)


def fid(x: Floats, y: Floats) -> float:
    """As published (Heusel et al. 2017), with scipy's matrix root."""
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(c1 + c2 - 2 * root))


def test_frechet_equals_scipys() -> None:
    x, y, photo = sets(60, 3, 7)
    value, pseudo = frechet(x, y, photo, 60)
    assert value == pytest.approx(fid(x, y), rel=1e-9)
    assert pseudo.mean() == pytest.approx(value)


def test_frechet_of_normal_distributions_in_closed_form() -> None:
    # Sets whose sample means and covariances are exactly m1, s1^2 I and m2, s2^2 I: |m1 - m2|^2 + D (s1 - s2)^2.
    rng = np.random.default_rng(1)
    centred = rng.normal(size=(80, 5))
    centred -= centred.mean(0)
    white = centred @ np.linalg.inv(np.linalg.cholesky(np.cov(centred, rowvar=False))).T
    value, _ = frechet(2.0 * white + 3.0, 0.5 * white[::-1] + 1.0, np.arange(80), 80)
    assert value == pytest.approx(5 * 2.0**2 + 5 * 1.5**2)


def test_kernel_equals_a_double_loop_over_forgeries_of_different_photos() -> None:
    x, y, photo = sets(9, 3, 4)

    def k(a: Floats, b: Floats) -> float:
        return float((a @ b / 4 + 1) ** 3)

    total, pairs = 0.0, 0
    for i in range(len(x)):
        for j in range(len(x)):
            if photo[i] != photo[j]:
                total += k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(y[i], x[j])
                pairs += 1
    value, pseudo = kernel(x, y, photo, 9)
    assert value == pytest.approx(total / pairs)
    assert pseudo.mean() == pytest.approx(value)


def test_kernel_is_kid_but_for_twins() -> None:
    """One forgery per photo: KID's sums, whose cross term also has every forgery beside its own twin."""
    x, y, photo = sets(30, 1, 6)
    cross = (x @ y.T / 6 + 1) ** 3
    without_twins = (cross.sum() - np.trace(cross)) / (30 * 29)
    kid = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
    assert kernel(x, y, photo, 30)[0] == pytest.approx(kid + 2 * cross.mean() - 2 * without_twins)


def test_equal_sets_are_at_zero_without_doubt() -> None:
    x, _, photo = sets(80, 3, 5)
    for distance in (frechet, kernel):
        value, pseudo = distance(x, x, photo, 80)
        assert value == pytest.approx(0, abs=1e-9)
        np.testing.assert_allclose(pseudo, 0, atol=1e-6)


def test_kernel_has_no_bias() -> None:
    """Sets of one distribution are at 0 on average, and some below it."""
    rng = np.random.default_rng(2)
    values = np.array([kernel(*rng.normal(size=(2, 20, 3)), np.arange(20), 20)[0] for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / 20
    assert (values < 0).mean() > 0.2


@pytest.mark.parametrize("distance", [frechet, kernel])
def test_pseudo_values_carry_the_uncertainty_of_resampled_photos(distance: object) -> None:
    """Their standard error is that of the distance itself, recomputed on photos drawn with replacement."""
    photos, edits = 150, 2
    x, y, photo = sets(photos, edits, 3, seed=5)
    _, pseudo = distance(x, y, photo, photos)  # type: ignore[operator]
    rng, redone = np.random.default_rng(0), []
    for _ in range(400):
        drawn = rng.integers(0, photos, photos)
        rows = (drawn[:, None] * edits + np.arange(edits)).reshape(-1)
        # A photo that is drawn twice is the same photo, so its forgeries are not compared with each other.
        redone.append(distance(x[rows], y[rows], photo[rows], photos)[0])  # type: ignore[operator]
    assert pseudo.std(ddof=1) / np.sqrt(photos) == pytest.approx(np.std(redone), rel=0.12)


def test_features_that_never_change_do_no_harm() -> None:
    x, y, photo = sets(60, 3, 4)
    dead = np.full((180, 2), 0.7)
    value, pseudo = frechet(np.hstack([x, dead]), np.hstack([y, dead]), photo, 60)
    wanted, pseudo_wanted = frechet(x, y, photo, 60)
    assert value == pytest.approx(wanted, rel=1e-6)
    np.testing.assert_allclose(pseudo, pseudo_wanted, rtol=1e-4, atol=1e-6)


def test_small_sets_have_no_distance() -> None:
    def known(photos: int, edits: int, width: int) -> dict[str, bool]:
        found = set_measures("net", SetPairs(*sets(photos, edits, width)), photos)
        return {name: bool(np.all(weight == 1)) for name, (_, weight) in found.items()}

    assert frechet_least(150) == 300
    assert known(LEAST // 2, 2, 4) == {"frechet_net": True, "kernel_net": True}
    assert known(LEAST // 2 - 1, 2, 4) == {"frechet_net": False, "kernel_net": False}
    assert known(149, 2, 150) == {"frechet_net": False, "kernel_net": True}
    assert known(150, 2, 150) == {"frechet_net": True, "kernel_net": True}
    assert known(1, 300, 4) == {"frechet_net": False, "kernel_net": False}
