"""What must hold for any input: boxes against themselves, identical images, curves, rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchmetrics.functional.image import structural_similarity_index_measure

from tsdf_ray.detectors.base import Boxes
from tsdf_ray.metrics import ROWS, Stage, make_rows, restage
from tsdf_ray.metrics.detection import detection_measures
from tsdf_ray.metrics.interruption import interruption_measures, l2_mask, region
from tsdf_ray.metrics.persistence import area, half_life
from tsdf_ray.metrics.visibility import psnr, similarity_measures, ssim

UNHURRIED = settings(deadline=None, max_examples=30)
SEEDS = st.integers(0, 2**31 - 1)


def random_boxes(seed: int, count: int) -> Boxes:
    """Boxes apart from each other (a detector's NMS sees to that), all above the threshold."""
    rng = np.random.default_rng(seed)
    corners = np.arange(count)[:, None] * 100 + rng.uniform(0, 30, (count, 2))
    sides = rng.uniform(5, 60, (count, 2))
    scores = np.sort(rng.uniform(0.75, 1, count))[::-1].copy()
    return Boxes(torch.from_numpy(np.concatenate([corners, corners + sides], 1)).float(), torch.from_numpy(scores))


@UNHURRIED
@given(SEEDS, st.integers(1, 6))
def test_untouched_photos_have_duq_one_and_hidden_ones_zero(seed: int, count: int) -> None:
    found = random_boxes(seed, count)
    same = detection_measures([found], [found])
    value, weight = same["duq"]
    assert value[0] == weight[0] == count
    assert same["score_change"][0][0] == 0
    assert same["f1"][0][0] == same["f1"][1][0]
    nothing = Boxes(torch.zeros(0, 4), torch.zeros(0))
    hidden = detection_measures([found], [nothing])
    assert hidden["duq"][0][0] == 0
    assert hidden["duq"][1][0] == count


@UNHURRIED
@given(SEEDS, st.integers(0, 5), st.integers(0, 5))
def test_counts_add_up(seed: int, clean: int, published: int) -> None:
    a, b = random_boxes(seed, clean), random_boxes(seed + 1, published)
    found = detection_measures([a], [b])
    for suffix in ("", "_50"):
        tp, fp, fn = (float(found[f"{name}{suffix}"][0]) for name in ("tp", "fp", "fn"))
        assert tp + fp == published
        assert tp + fn == clean
        assert 0 <= tp <= min(clean, published)
    assert found["tp"][0] <= found["tp_50"][0]


@UNHURRIED
@given(SEEDS)
def test_l2_mask_is_zero_only_without_a_difference_in_the_region(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    x, clean = torch.rand(3, 3, 8, 8, generator=rng) * 2 - 1, torch.rand(3, 3, 8, 8, generator=rng) * 2 - 1
    edited = region(x, clean)
    assert l2_mask(edited, clean, clean).tolist() == [0, 0, 0]
    value = l2_mask(edited, clean, clean + 0.5)
    assert value.tolist() == pytest.approx([0.25] * 3, abs=1e-6)


def test_measures_are_finite_whatever_was_found() -> None:
    for measures in (
        interruption_measures(np.array([np.nan, 0.3])),
        similarity_measures(np.array([np.inf, 30.0]), np.array([1.0, 0.9])),
        detection_measures([random_boxes(0, 0)], [random_boxes(0, 2)]),
    ):
        for metric, measure in measures.items():
            for column in measure if isinstance(measure, tuple) else (measure,):
                assert np.isfinite(np.asarray(column, dtype=float)).all(), metric


@UNHURRIED
@given(SEEDS)
def test_ssim_agrees_with_torchmetrics_away_from_its_padding(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    a = torch.rand(2, 3, 24, 31, generator=rng) * 2 - 1
    b = (a + 0.2 * torch.randn(a.shape, generator=rng)).clamp(-1, 1)
    settings = {"sigma": 1.5, "data_range": 2.0, "reduction": "none", "return_full_image": True}
    whole = structural_similarity_index_measure(a.double(), b.double(), **settings)[1]
    torch.testing.assert_close(ssim(a, b), whole[..., 5:-5, 5:-5].mean((1, 2, 3)), atol=2e-5, rtol=0)


def test_identical_images() -> None:
    a = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    assert math.isinf(float(psnr(a, a)))
    assert float(ssim(a, a)) == pytest.approx(1)
    flat = torch.full_like(a, 0.3)
    assert float(ssim(flat, flat)) == pytest.approx(1, abs=1e-4)


CURVES = hnp.arrays(np.float64, st.integers(2, 7), elements=st.floats(0.01, 1))


@UNHURRIED
@given(CURVES)
def test_a_curve_that_stays_has_area_one_and_no_half_life(curve: np.ndarray) -> None:
    x = np.arange(len(curve), dtype=float)
    flat = np.full_like(curve, curve[0])
    assert float(area(x, flat)) == pytest.approx(1)
    assert math.isinf(float(half_life(x, flat)))


@UNHURRIED
@given(CURVES, st.floats(0.1, 10), st.floats(0.1, 10))
def test_scale_of_the_curve_does_not_matter_and_that_of_the_steps_does(
    curve: np.ndarray, by: float, step: float
) -> None:
    x = np.arange(len(curve), dtype=float)
    assert float(area(x * step, curve * by)) == pytest.approx(float(area(x, curve)))
    life, other = float(half_life(x, curve)), float(half_life(x * step, curve))
    assert math.isinf(life) == math.isinf(other)
    if math.isfinite(life):
        assert 0 < life <= x[-1]
        assert other == pytest.approx(life * step)


@UNHURRIED
@given(st.integers(1, 20), SEEDS)
def test_many_curves_at_once_are_the_same_as_one_by_one(count: int, seed: int) -> None:
    curves = np.random.default_rng(seed).random((count, 5)).round(2)
    x = np.array([0, 0.1, 0.25, 0.5, 1])
    for measure in (area, half_life):
        np.testing.assert_array_equal(measure(x, curves), [measure(x, curve) for curve in curves])


def test_a_curve_with_a_hole_is_not_available() -> None:
    broken = np.array([0.5, np.nan, 0.1])
    assert math.isnan(float(half_life(np.arange(3.0), broken)))
    assert math.isnan(float(area(np.arange(3.0), broken)))


def test_rows_have_one_schema_and_refuse_what_is_not_a_number() -> None:
    rows = make_rows(Stage(2, 3, "later", 1.0), ["a", "b"], {"x": np.array([True, False])}, ["e", "f"], model="m")
    assert rows.schema == ROWS
    assert rows["value"].to_pylist() == [1.0, 0.0]
    assert rows["weight"].to_pylist() == [1.0, 1.0]
    moved = restage(rows, Stage(2, 2, "decay", 0.5))
    assert moved.schema == ROWS
    assert set(zip(moved["phase"].to_pylist(), moved["step_share"].to_pylist(), strict=True)) == {("decay", 0.5)}
    assert moved["model"].to_pylist() == ["m", "m"]
    assert restage(rows, Stage(2, 2, "decay"), ["y"]).num_rows == 0
    with pytest.raises(ValueError, match="must be finite"):
        make_rows(Stage(1, 1, "after"), ["a"], {"x": np.array([np.nan])})
