"""Metrics against numbers computed by hand or by a plain reimplementation in this file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tsdf_ray.detectors.base import Boxes
from tsdf_ray.metrics import Stage, aggregate, make_rows
from tsdf_ray.metrics.detection import detection_measures
from tsdf_ray.metrics.interruption import interruption_measures, l2_mask, protected, region
from tsdf_ray.metrics.persistence import area, half_life
from tsdf_ray.metrics.visibility import psnr, ssim


def boxes(*rows: tuple[float, float, float, float, float]) -> Boxes:
    found = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return Boxes(found[:, :4], found[:, 4])


def total(measure: object) -> float:
    """sum(value) / sum(weight)."""
    value, weight = measure if isinstance(measure, tuple) else (measure, np.ones(len(measure)))  # type: ignore[arg-type]
    return float(np.sum(value) / np.sum(weight))


class TestInterruption:
    def test_l2_mask_by_hand(self) -> None:
        x = torch.zeros(1, 3, 2, 2)
        clean = x.clone()
        clean[0, :, 0, 0] = 0.2  # |change| summed over RGB: .6, in R
        clean[0, 0, 0, 1] = -0.75  # .75, in R
        clean[0, 0, 1, 0] = 0.5  # exactly .5: not in R
        clean[0, :, 1, 1] = 0.1  # .3: not in R
        forged = clean.clone()
        forged[0, 1, 0, 0] += 0.3  # .09 inside R
        forged[0, 0, 0, 1] += 0.6  # .36 inside R
        forged[0, 2, 1, 1] += 1.0  # outside R: does not count
        assert region(x, clean)[0].tolist() == [[True, True], [False, False]]
        # (.09 + .36) / (2 pixels x 3 channels)
        assert float(l2_mask(region(x, clean), clean, forged)) == pytest.approx(0.075, abs=1e-7)

    def test_empty_region_is_excluded_and_counted(self) -> None:
        measures = interruption_measures(np.array([0.075, np.nan, 0.01, 0.05]))
        assert total(measures["l2_mask"]) == pytest.approx((0.075 + 0.01 + 0.05) / 3)
        assert total(measures["sr_mask"]) == pytest.approx(1 / 3)  # .05 itself is not above .05
        assert total(measures["l2_mask_excluded"]) == pytest.approx(1 / 4)

    def test_a_pair_is_protected_when_the_edit_is_not_there_or_is_distorted(self) -> None:
        success = np.array([True, True, False, False, True])
        l2 = np.array([0.0, 0.06, 0.0, 0.06, np.nan])
        assert protected(success, l2).tolist() == [False, True, True, True, False]


class TestDetection:
    CLEAN = (boxes((0, 0, 10, 10, 0.99), (20, 20, 40, 40, 0.9)), boxes(), boxes((0, 0, 8, 8, 0.8)))
    # Photo 0: the first face exactly, the second with IoU 240 / 400 = .6, one false box, one below the threshold.
    # Photo 1: a false box where no face is. Photo 2: the face twice; the same box may match only once.
    PUBLISHED = (
        boxes((0, 0, 10, 10, 0.95), (20, 20, 40, 32, 0.8), (50, 50, 60, 60, 0.75), (70, 70, 80, 80, 0.7)),
        boxes((5, 5, 9, 9, 0.9)),
        boxes((0, 0, 8, 8, 0.9), (0, 0, 8, 8, 0.85)),
    )

    def test_at_iou_seven_tenths(self) -> None:
        found = detection_measures(self.CLEAN, self.PUBLISHED)
        assert (found["tp"].tolist(), found["fp"].tolist(), found["fn"].tolist()) == ([1, 0, 1], [2, 1, 1], [1, 0, 0])
        # Photo 1 has no clean box and stays out of DUQ: ((1 - 2) + (1 - 1)) / (2 + 1).
        assert total(found["duq"]) == pytest.approx(-1 / 3)
        assert total(found["duq_excluded"]) == pytest.approx(1 / 3)
        assert total(found["precision"]) == pytest.approx(2 / 6)
        assert total(found["recall"]) == pytest.approx(2 / 3)
        assert total(found["f1"]) == pytest.approx(4 / (4 + 4 + 1))
        assert total(found["box_count_change"]) == pytest.approx((1 + 1 + 1) / 3)

    def test_at_iou_one_half(self) -> None:
        found = detection_measures(self.CLEAN, self.PUBLISHED)
        assert total(found["duq_50"]) == pytest.approx(((2 - 1) + (1 - 1)) / 3)
        assert total(found["f1_50"]) == pytest.approx(6 / (6 + 3 + 0))

    def test_score_change_is_per_clean_face(self) -> None:
        found = detection_measures(self.CLEAN, self.PUBLISHED)
        # .95 - .99, .8 - .9 and .9 - .8 (the better of two boxes), over three faces.
        assert total(found["score_change"]) == pytest.approx((-0.04 - 0.1 + 0.1) / 3, abs=1e-6)
        hidden = detection_measures((boxes((0, 0, 10, 10, 0.9)),), (boxes(),))
        assert total(hidden["score_change"]) == pytest.approx(-0.9, abs=1e-6)
        assert total(hidden["duq"]) == 0.0

    def test_ratios_are_summed_over_photos_before_dividing(self) -> None:
        found = detection_measures(self.CLEAN, self.PUBLISHED)
        rows = make_rows(Stage(1, 1, "detection"), ["a", "b", "c"], {"duq": found["duq"], "f1": found["f1"]})
        for position, (name, value) in enumerate((("seed", 0), ("defender", "d"), ("attacker", "a"))):
            rows = rows.add_column(position, name, pa.array([value] * rows.num_rows))
        table = {row["metric"]: row for row in aggregate(rows, 100, 0).to_pylist() if row["seed"] is None}
        assert table["duq"]["value"] == pytest.approx(-1 / 3)
        assert table["duq"]["n"] == 2
        assert table["f1"]["value"] == pytest.approx(4 / 9)


class TestPersistence:
    STEPS = np.array([0.0, 10, 25, 50, 100])
    CURVE = np.array([0.8, 0.6, 0.3, 0.1, 0.0])

    def test_half_life_by_linear_interpolation(self) -> None:
        # Half is .4, between (10, .6) and (25, .3): 10 + 15 x .2 / .3.
        assert float(half_life(self.STEPS, self.CURVE)) == pytest.approx(20.0)

    def test_half_life_is_the_first_crossing(self) -> None:
        assert float(half_life(np.arange(4.0), np.array([1.0, 0.4, 0.9, 0.1]))) == pytest.approx(0.5 / 0.6)

    def test_exactly_half_is_not_under_it(self) -> None:
        assert math.isinf(float(half_life(np.arange(3.0), np.array([1.0, 0.5, 0.5]))))
        assert float(half_life(np.arange(3.0), np.array([1.0, 0.5, 0.2]))) == pytest.approx(1.0)

    def test_area_normalised_by_the_start(self) -> None:
        # Trapezoids over shares of the steps: .07 + .0675 + .05 + .025 = .2125, over .8.
        assert float(area(self.STEPS / 100, self.CURVE)) == pytest.approx(0.265625)

    def test_nothing_to_lose_is_not_available(self) -> None:
        assert math.isnan(float(half_life(np.arange(2.0), np.zeros(2))))
        assert math.isnan(float(area(np.arange(2.0), np.zeros(2))))


def plain_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, window by window: a and b [C, H, W] in [-1, 1]."""
    offset = np.arange(11) - 5
    window = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for one, other in zip(a.astype(np.float64), b.astype(np.float64), strict=True):
        for i in range(one.shape[0] - 10):
            for j in range(one.shape[1] - 10):
                p, q = one[i : i + 11, j : j + 11], other[i : i + 11, j : j + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                top = (2 * mp * mq + 0.02**2) * (2 * cov + 0.06**2)
                values.append(top / ((mp**2 + mq**2 + 0.02**2) * (vp + vq + 0.06**2)))
    return float(np.mean(values))


class TestVisibility:
    def test_psnr_by_hand(self) -> None:
        a = torch.zeros(2, 3, 4, 4)
        b = torch.stack([torch.full((3, 4, 4), 0.05), torch.zeros(3, 4, 4)])
        b[1, 0, 0, 0] = 1.0
        # Range 2: 10 log10(4 / .0025), and one entry of 48 off by 1: 10 log10(4 x 48).
        assert psnr(a, b).tolist() == pytest.approx([10 * math.log10(1600), 10 * math.log10(192)], abs=1e-5)

    def test_ssim_against_plain_windows(self) -> None:
        rng = np.random.default_rng(3)
        smooth = rng.uniform(-1, 1, (2, 3, 4, 5)).repeat(4, 2).repeat(4, 3)[:, :, :15, :18]
        noisy = np.clip(smooth + rng.normal(0, 0.2, smooth.shape), -1, 1)
        found = ssim(torch.from_numpy(smooth), torch.from_numpy(noisy))
        assert found.tolist() == pytest.approx([plain_ssim(a, b) for a, b in zip(smooth, noisy, strict=True)], abs=1e-5)

    @pytest.mark.assets
    def test_published_perturbation_has_the_published_psnr(self, assets: Path) -> None:
        path = assets / "weights" / "tsdf_authors_stage1_perturbation.pt"
        w = torch.load(path, weights_only=True, map_location="cpu").float().reshape(1, 3, 256, 256)
        assert float(psnr(torch.zeros_like(w), w)) == pytest.approx(32.9, abs=0.1)
