"""The detectors with packaged weights: what they find. What every detector holds is in test_detector_contract.py."""

from __future__ import annotations

import itertools

import pytest
import torch

from tsdf_ray.detectors import Boxes, Detector, RawOutput, load_detector
from tsdf_ray.detectors.geometry import iou, match
from tsdf_ray.detectors.mtcnn import MTCNN, MTCNNConfig
from tsdf_ray.detectors.weights import PACKAGED


@pytest.fixture(scope="module", params=sorted(PACKAGED))
def detector(request: pytest.FixtureRequest) -> Detector:
    return load_detector(request.param)


def detect_all(detector: Detector, photos: torch.Tensor) -> list[Boxes]:
    return [boxes for batch in photos.split(50) for boxes in detector.detect(batch)]


def random_sum(out: RawOutput) -> torch.Tensor:
    """Features and log-odds under fixed random weights: no entry's gradient cancels by symmetry."""
    rng = torch.Generator().manual_seed(5)
    values = [*out.features, *(group.log_odds_N for group in out.groups)]
    return torch.stack([(v * torch.randn(v.shape, generator=rng, dtype=v.dtype)).sum() for v in values]).sum()


def test_no_face_in_noise_or_grey(detector: Detector) -> None:
    noise = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for boxes in detector.detect(torch.cat([noise, torch.zeros(1, 3, 128, 128)])):
        assert len(boxes) == 0
        assert boxes.boxes_N4.shape == (0, 4)


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (128, 128), (130, 250)])
def test_any_size(detector: Detector, size: tuple[int, int]) -> None:
    x = torch.zeros(2, 3, *size, requires_grad=True)
    out = detector.raw(x)
    assert len(out.features) == len(detector.feature_levels) == 3
    assert all(level.shape[0] == 2 and min(level.shape[1:]) >= 1 for level in out.features)
    for group in out.groups:
        count = len(group.photo_N)
        assert group.boxes_N4.shape == (count, 4)
        torch.testing.assert_close(group.scores_N, group.log_odds_N.sigmoid())
    (gradient,) = torch.autograd.grad(random_sum(out), x)
    assert gradient.isfinite().all()


def test_the_largest_size(detector: Detector) -> None:
    assert len(detector.detect(torch.zeros(1, 3, 1024, 1024))[0]) == 0


@pytest.mark.parametrize("shape", [(1, 3, 63, 128), (1, 3, 128, 1025), (3, 128, 128), (1, 1, 128, 128)])
def test_other_shapes_are_refused(detector: Detector, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="photos must be"):
        detector.detect(torch.zeros(shape))


@pytest.mark.assets
def test_every_synthetic_face_is_found_once_where_it_is(detector: Detector, synthetic_faces: torch.Tensor) -> None:
    found = detect_all(detector, synthetic_faces)
    assert [len(boxes) for boxes in found] == [1] * 100
    centres = torch.stack([(boxes.boxes_N4[0, :2] + boxes.boxes_N4[0, 2:]) / 2 for boxes in found])
    assert ((centres > 45) & (centres < 90)).all()  # faces stand in the middle of the 128 px photo


@pytest.mark.assets
@pytest.mark.parametrize("names", [*itertools.combinations(sorted(PACKAGED), 2)], ids="-".join)
def test_the_detectors_agree_where_the_faces_are(synthetic_faces: torch.Tensor, names: tuple[str, str]) -> None:
    first, second = (detect_all(load_detector(name), synthetic_faces[:32]) for name in names)
    overlaps = [float(iou(a.boxes_N4, b.boxes_N4)[0, 0]) for a, b in zip(first, second, strict=True)]
    assert min(overlaps) > 0.5
    assert sum(overlaps) / len(overlaps) > 0.75


@pytest.mark.assets
def test_celeba_faces_are_found(detector: Detector, celeba_faces: torch.Tensor) -> None:
    found = detect_all(detector, celeba_faces)
    assert sum(len(boxes) > 0 for boxes in found) >= 0.98 * 500


@pytest.mark.assets
def test_small_faces_in_a_crowd(detector: Detector, crowd: torch.Tensor) -> None:
    """Another detector is the reference: most of what one finds in a 1024 px crowd, the other finds too."""
    (mine,) = detector.detect(crowd)
    (other,) = load_detector("mtcnn" if detector.name == "retinaface" else "retinaface").detect(crowd)
    assert min(len(mine), len(other)) >= 8
    assert len(match(mine.boxes_N4, other.boxes_N4, 0.4)) >= 0.6 * min(len(mine), len(other))


@pytest.mark.assets
def test_scores_fall_and_the_threshold_cuts(detector: Detector, crowd: torch.Tensor) -> None:
    (boxes,) = detector.detect(crowd, 0.7)
    middle = float(boxes.scores_N.median())
    (strict,) = detector.detect(crowd, middle)
    assert torch.equal(boxes.scores_N, boxes.scores_N.sort(descending=True).values)
    assert float(boxes.scores_N.min()) > 0.7
    assert 0 < len(strict) < len(boxes)
    assert float(strict.scores_N.min()) > middle


@pytest.mark.assets
@pytest.mark.parametrize("part", ["features", "log_odds", "boxes"])
def test_every_pixel_gets_a_gradient(detector: Detector, synthetic_faces: torch.Tensor, part: str) -> None:
    x = synthetic_faces[:2].clone().requires_grad_()
    out = detector.raw(x)
    values = {
        "features": [level.flatten() for level in out.features],
        "log_odds": [group.log_odds_N for group in out.groups],
        "boxes": [group.boxes_N4.flatten() for group in out.groups],
    }[part]
    flat = torch.cat(values)
    weights = torch.randn(len(flat), generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((flat * weights).sum(), x)
    assert (gradient != 0).double().mean() > 0.99
    assert gradient.isfinite().all()


@pytest.mark.assets
def test_mtcnn_crops_of_the_clean_photo_can_be_held(synthetic_faces: torch.Tensor) -> None:
    detector = load_detector("mtcnn")
    assert isinstance(detector, MTCNN)
    x = synthetic_faces[:2]
    crops = detector.crops(x)
    assert [group.name for group in detector.raw(x).groups][-2:] == ["rnet", "onet"]
    free, held = detector.raw(x).groups, detector.raw(x, crops).groups
    for a, b in zip(free, held, strict=True):
        torch.testing.assert_close(a.log_odds_N, b.log_odds_N, atol=1e-3, rtol=1e-4)
    blank_free, blank_held = detector.raw(x * 0).groups, detector.raw(x * 0, crops).groups
    assert len(blank_free[-1].scores_N) == 0
    assert len(blank_held[-1].scores_N) == len(held[-1].scores_N) > 0


@pytest.mark.assets
def test_mtcnn_skips_faces_below_min_face(synthetic_faces: torch.Tensor) -> None:
    x = synthetic_faces[:4]
    big = MTCNN.load(config=MTCNNConfig(min_face=120))
    assert len(big.raw(x).groups) < len(load_detector("mtcnn").raw(x).groups)
    small = torch.nn.functional.pad(torch.nn.functional.interpolate(x, size=(40, 40), mode="area"), (44, 44, 44, 44))
    assert all(len(boxes) == 0 for boxes in big.detect(small))
    assert any(len(boxes) > 0 for boxes in MTCNN.load(config=MTCNNConfig(min_face=16)).detect(small))
