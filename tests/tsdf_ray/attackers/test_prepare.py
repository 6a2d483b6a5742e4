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

from tsdf_ray.attackers import PrepareConfig, prepare
from tsdf_ray.attackers.prepare import CHUNK, crop, square
from tsdf_ray.detectors.base import Boxes, Detector, RawOutput
from tsdf_ray.faces.faceset import FaceSet

SIZE = 64


class Listed(Detector):
    """Finds what it is told, by the grey level of the photo's corner; notes what it was asked."""

    def __init__(self, finds: dict[int, list[tuple[float, ...]]]) -> None:
        super().__init__()
        self._finds = finds
        self.asked: list[int] = []
        self.sides: list[int] = []

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
        self.sides.append(x_BCHW.shape[-1])
        found = []
        for level in levels:
            rows = [row for row in self._finds.get(level, []) if row[4] > score_threshold]
            table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
            found.append(Boxes(table[:, :4], table[:, 4]))
        return found


class Bounding(Listed):
    """Finds the box around the bright pixels; sees nothing in its first `blind_views` calls."""

    def __init__(self, blind_views: int) -> None:
        super().__init__({})
        self._blind_views = blind_views

    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        self._blind_views -= 1
        if self._blind_views >= 0:
            return [Boxes(torch.zeros(0, 4), torch.zeros(0)) for _ in x_BCHW]
        rows, columns = torch.nonzero(x_BCHW[0, 0] > 0, as_tuple=True)
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return [Boxes(torch.tensor([corners], dtype=torch.float32), torch.ones(1))]


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


SURE = (0.0, 0.0, 9.0, 9.0, 0.95)


@pytest.mark.parametrize(
    ("combine", "used"), [("any", [0, 1, 2, 3]), ("majority", [0, 1])], ids=["any", "majority of three"]
)
def test_detectors_vote_and_the_surest_gives_the_box(combine: str, used: list[int]) -> None:
    detectors = {
        "a": Listed({0: [FACE], 1: [FACE], 2: [FACE]}),
        "b": Listed({0: [SURE], 1: [FACE], 3: [SURE]}),
        "c": Listed({0: [FACE]}),
    }
    config = PrepareConfig.model_validate({"detectors": ["a", "b", "c"], "combine": combine})
    found = prepare(config, detectors, photos(5))
    assert [(work.what, work.photos) for work in found.work] == [("detect a", 5), ("detect b", 5), ("detect c", 5)]
    assert found.used_U.tolist() == used
    assert found.found_N.tolist() == [i in used for i in range(5)]
    np.testing.assert_array_equal(found.boxes_N4[0], SURE[:4])
    assert found.scores_N[0] == pytest.approx(0.95)
    for lost in set(range(5)) - set(used):
        assert not found.boxes_N4[lost].any()
        assert found.scores_N[lost] == 0


def test_one_of_two_detectors_is_no_majority() -> None:
    detectors = {"a": Listed({0: [FACE], 1: [FACE]}), "b": Listed({0: [FACE]})}
    found = prepare(PrepareConfig(detectors=("a", "b"), combine="majority"), detectors, photos(2))
    assert found.used_U.tolist() == [0]


def test_boxes_of_an_enlarged_photo_are_mapped_back() -> None:
    """64 px times 1.5 are 96: a find at (24, 12, 72, 60) there is (16, 8, 48, 40) in the photo."""
    detector = Listed({0: [(24.0, 12.0, 72.0, 60.0, 0.9)]})
    found = prepare(PrepareConfig(detectors=("d",), enlarge=1.5), {"d": detector}, photos(1))
    assert detector.sides == [96]
    np.testing.assert_allclose(found.boxes_N4[0], FACE[:4], rtol=1e-6)
    assert found.photos.size == SIZE


def test_the_mirrored_photo_is_tried_where_nothing_was_found() -> None:
    """Column 63 is dark in photo 0, so only its mirror image has the corner the detector knows."""
    pixels = photos(2).pixels_BCHW
    pixels[0, :, 0, 0], pixels[0, :, 0, -1] = 7, 9
    pixels[1, :, 0, 0] = 5
    faces = photos(2).with_pixels(pixels)
    detector = Listed({9: [(10.0, 4.0, 30.0, 44.0, 0.8)], 5: [FACE]})
    assert prepare(PrepareConfig(detectors=("d",)), {"d": detector}, faces).used_U.tolist() == [1]
    detector.asked.clear()
    found = prepare(PrepareConfig(detectors=("d",), flip=True), {"d": detector}, faces)
    assert detector.asked == [7, 5, 9]  # photo 1 was found at once
    np.testing.assert_array_equal(found.boxes_N4[0], (34, 4, 54, 44))  # 64 - 30, 64 - 10
    np.testing.assert_array_equal(found.boxes_N4[1], FACE[:4])


@settings(deadline=None, max_examples=25)
@given(st.floats(1, 4), st.integers(0, 31), st.integers(0, 31))
def test_a_bright_cell_is_found_where_it_is_in_every_view(enlarge: float, left: int, top: int) -> None:
    """A real search, not a table: the brightest pixels' box, whatever the view, maps back to the cell."""
    pixels = np.zeros((1, 3, SIZE, SIZE), np.uint8)
    pixels[:, :, top : top + 16, left : left + 24] = 255
    faces = photos(1).with_pixels(pixels)
    for only_mirrored in (False, True):
        config = PrepareConfig(detectors=("d",), enlarge=enlarge, flip=True)
        found = prepare(config, {"d": Bounding(blind_views=int(only_mirrored))}, faces)
        np.testing.assert_allclose(found.boxes_N4[0], (left, top, left + 24, top + 16), atol=1.5)


def test_known_boxes_serve_the_photos_without_a_find() -> None:
    low = (16.0, 24.0, 48.0, 56.0, 0.9)
    detector = {"d": Listed({0: [FACE], 1: [low]})}
    config = PrepareConfig(detectors=("d",), crop="box", margin=0.0, known_boxes=True)
    found = prepare(config, detector, photos(3))
    assert found.used_U.tolist() == [0, 1, 2]
    assert found.found_N.tolist() == [True, True, False]
    assert found.has_box_N.all()
    np.testing.assert_array_equal(found.boxes_N4[2], (16, 16, 48, 48))  # the mean of the two
    assert found.scores_N[2] == 0
    np.testing.assert_array_equal(found.photos.pixels_BCHW[2], crop(photos(3).pixels_BCHW[2], (16, 16, 32)))


def test_without_any_find_no_box_is_known() -> None:
    config = PrepareConfig(detectors=("d",), known_boxes=True)
    found = prepare(config, {"d": Listed({})}, photos(2))
    assert len(found.photos) == 0
    assert not found.has_box_N.any()


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
    [
        {"crop": "box"},
        {"known_boxes": True},
        {"detectors": ["a", "a"]},
        {"detectors": ["a"], "combine": "first"},
        {"on_miss": "retry"},
        {"score_threshold": 1.0},
        {"margin": -1},
        {"enlarge": 0.5},
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PrepareConfig.model_validate(wrong)
