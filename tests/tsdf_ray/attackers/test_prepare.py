"""Preparation with detectors whose finds are known: gate, crop, miss policies, several detectors and faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tsdf_ray.attackers import PrepareConfig, prepare, purify
from tsdf_ray.attackers.prepare import CHUNK, crop, square
from tsdf_ray.channels import BlurChannel, JpegChannel
from tsdf_ray.detectors.base import Boxes, Detector, RawOutput
from tsdf_ray.faces.faceset import FaceSet

SIZE = 64


class Listed(Detector):
    """Finds what it is told, by the grey level of the photo's corner; notes what it was asked."""

    def __init__(self, finds: dict[int, list[tuple[float, ...]]]) -> None:
        super().__init__()
        self._finds = finds
        self.asked: list[int] = []

    @classmethod
    def load(cls, weights: Path | None = None) -> Listed:
        raise AssertionError("there are no weights")

    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        raise AssertionError("preparation never differentiates")

    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise AssertionError("preparation needs no features")

    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        assert len(x_BCHW) <= CHUNK
        levels = ((x_BCHW[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
        self.asked += levels
        found = []
        for level in levels:
            rows = [row for row in self._finds.get(level, []) if row[4] > score_threshold]
            table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
            found.append(Boxes(table[:, :4], table[:, 4]))
        return found


def photos(count: int) -> FaceSet:
    """Photo i is grey level i with a white square from (16, 8) to (48, 40)."""
    pixels = np.zeros((count, 3, SIZE, SIZE), np.uint8)
    pixels += np.arange(count, dtype=np.uint8)[:, None, None, None]
    pixels[:, :, 8:40, 16:48] = 255
    labels = np.tile(np.array([[1, 0]], np.uint8), (count, 1))
    return FaceSet(pixels, labels, ("Black_Hair", "Male"), tuple(f"photo {i}" for i in range(count)))


FACE = (16.0, 8.0, 48.0, 40.0, 0.9)


def test_a_detection_gates_and_leaves_the_photo_alone() -> None:
    faces = photos(4)
    found = prepare(PrepareConfig(detectors=("d",)), {"d": Listed({1: [FACE], 3: [FACE]})}, faces)
    assert found.photos.ids == ("photo 1", "photo 3")
    assert found.used_U.tolist() == [1, 3]
    assert found.has_box_N.tolist() == [False, True, False, True]
    np.testing.assert_array_equal(found.boxes_N4[1], FACE[:4])
    np.testing.assert_array_equal(found.boxes_N4[0], 0)
    np.testing.assert_array_equal(found.photos.pixels_BCHW, faces.pixels_BCHW[[1, 3]])


def test_the_threshold_counts() -> None:
    detector = {"d": Listed({0: [FACE]})}
    assert len(prepare(PrepareConfig(detectors=("d",), score_threshold=0.89), detector, photos(1)).photos) == 1
    assert len(prepare(PrepareConfig(detectors=("d",), score_threshold=0.91), detector, photos(1)).photos) == 0


def test_the_largest_face_wins_over_the_surest() -> None:
    small = (0.0, 0.0, 10.0, 10.0, 0.99)
    found = prepare(PrepareConfig(detectors=("d",)), {"d": Listed({0: [small, FACE]})}, photos(1))
    np.testing.assert_array_equal(found.boxes_N4[0], FACE[:4])
    assert found.scores_N[0] == pytest.approx(0.9)


def test_a_box_is_cropped_and_scaled_to_the_photos_size() -> None:
    found = prepare(PrepareConfig(detectors=("d",), crop="box", margin=0.0), {"d": Listed({0: [FACE]})}, photos(1))
    assert found.photos.size == SIZE
    assert found.photos.pixels_BCHW.min() == 255  # the square alone
    wide = prepare(PrepareConfig(detectors=("d",), crop="box", margin=0.25), {"d": Listed({0: [FACE]})}, photos(1))
    # 32 px and a quarter of it on each side: 48 px, so the white square takes (32 / 48)^2 of the crop.
    assert (wide.photos.pixels_BCHW > 127).mean() == pytest.approx((32 / 48) ** 2, abs=0.03)


@pytest.mark.parametrize(("on_miss", "usable"), [("drop", 1), ("keep", 2), ("center_crop", 2)])
def test_a_photo_without_a_face(on_miss: str, usable: int) -> None:
    config = PrepareConfig.model_validate({"detectors": ["d"], "crop": "box", "on_miss": on_miss, "center": 0.5})
    faces = photos(2)
    found = prepare(config, {"d": Listed({1: [FACE]})}, faces)
    assert len(found.photos) == usable
    assert found.has_box_N.tolist() == [False, True]
    if on_miss == "keep":
        np.testing.assert_array_equal(found.photos.pixels_BCHW[0], faces.pixels_BCHW[0])
    if on_miss == "center_crop":
        np.testing.assert_array_equal(found.photos.pixels_BCHW[0], crop(faces.pixels_BCHW[0], (16, 16, 32)))


def test_a_second_detector_is_asked_only_where_the_first_finds_nothing() -> None:
    first, second = Listed({0: [FACE]}), Listed({0: [(0, 0, 9, 9, 0.9)], 2: [FACE]})
    found = prepare(PrepareConfig(detectors=("a", "b")), {"a": first, "b": second}, photos(3))
    assert found.used_U.tolist() == [0, 2]
    assert second.asked == [1, 2]
    np.testing.assert_array_equal(found.boxes_N4[0], FACE[:4])


def test_without_a_detector_everything_is_usable() -> None:
    faces = photos(3)
    found = prepare(PrepareConfig(), {}, faces)
    assert found.photos.digest == faces.digest
    assert not found.has_box_N.any()


def test_more_photos_than_a_chunk_keep_their_order() -> None:
    found = prepare(PrepareConfig(detectors=("d",)), {"d": Listed({CHUNK + 2: [FACE], 3: [FACE]})}, photos(CHUNK + 5))
    assert found.used_U.tolist() == [3, CHUNK + 2]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-40, 200), min_size=4, max_size=4), st.floats(0, 2), st.integers(8, 160))
def test_a_crop_always_lies_in_the_photo(corners: list[float], margin: float, size: int) -> None:
    xs, ys = sorted(corners[:2]), sorted(corners[2:])
    left, top, side = square(np.array([xs[0], ys[0], xs[1], ys[1]], np.float32), margin, size)
    assert side >= 1
    assert left >= 0
    assert top >= 0
    assert left + side <= size
    assert top + side <= size


@pytest.mark.parametrize(
    "wrong",
    [{"crop": "box"}, {"detectors": ["a", "a"]}, {"on_miss": "retry"}, {"score_threshold": 1.0}, {"margin": -1}],
)
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PrepareConfig.model_validate(wrong)


def test_purification_runs_in_order_and_nothing_is_nothing() -> None:
    faces = photos(2)
    assert purify((), faces).digest == faces.digest
    blur, jpeg = BlurChannel(sigma=2.0), JpegChannel(quality=30)
    one, other = purify((blur, jpeg), faces), purify((jpeg, blur), faces)
    assert one.ids == faces.ids
    assert len({one.digest, other.digest, faces.digest}) == 3
