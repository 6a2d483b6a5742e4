"""Where the faces are in a photo of any size, and how a perturbation is stretched over them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tsdf_ray.detectors import Boxes, load_detector
from tsdf_ray.faces import decode, load_photo
from tsdf_ray.faces.sample import SAMPLE
from tsdf_ray.photos import LOCATORS
from tsdf_ray.regions import Region, all_face_regions, centre_square, face_regions, stretch


class Fixed:
    """A detector that finds these boxes (pixels) in every photo."""

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.boxes = torch.tensor(boxes).reshape(-1, 4)

    def detect(self, x_BCHW: torch.Tensor, score_threshold: float) -> list[Boxes]:
        return [Boxes(self.boxes, torch.ones(len(self.boxes)))] * len(x_BCHW)


def picture(height: int, width: int) -> np.ndarray:
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def test_the_second_detector_helps_out() -> None:
    image, one = picture(100, 100), Fixed((30.0, 30.0, 60.0, 60.0))
    assert len(face_regions(image, [one])) == 1  # type: ignore[list-item]
    assert face_regions(image, [Fixed(), one]) == face_regions(image, [one])  # type: ignore[list-item]
    assert face_regions(image, [Fixed()]) == []  # type: ignore[list-item]


def test_many_photos_are_looked_at_together_as_one_by_one() -> None:
    detectors = [load_detector(name) for name in LOCATORS]
    faces = [load_square(k) for k in range(20)]
    images = [*faces, picture(60, 90), *(np.asarray(Image.fromarray(face).resize((150, 150))) for face in faces[:3])]
    images.append(np.concatenate(faces[:2], axis=1))
    assert all_face_regions(images, detectors) == [face_regions(image, detectors) for image in images]
    assert all_face_regions([], detectors) == []


def load_square(k: int) -> np.ndarray:
    """A packaged face, uint8 [128, 128, 3]."""
    data = pq.ParquetFile(SAMPLE).read_row_group(0, columns=["image"])["image"][k].as_py()
    return decode(data, "sample")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 300))
def test_stretch_keeps_values_and_order(size: int, side: int) -> None:
    steps = np.arange(3 * size * size, dtype=np.int16).reshape(3, size, size)
    large = stretch(steps, side)
    assert large.shape == (side, side, 3)
    assert set(np.unique(large)) <= set(np.unique(steps))
    assert (np.diff(large[:, :, 0].astype(int), axis=0) >= 0).all()
    if side % size == 0:
        assert (large[:: side // size, :: side // size].transpose(2, 0, 1) == steps).all()


@pytest.mark.parametrize(("height", "width"), [(16, 3000), (3000, 16), (64, 64), (40, 50), (1500, 2000)])
def test_any_shape_can_be_looked_at(height: int, width: int) -> None:
    found = face_regions(picture(height, width), [load_detector("retinaface")])
    assert all(region.left + region.side <= width and region.top + region.side <= height for region in found)
    side = min(height, width)
    assert centre_square(picture(height, width)) == Region((width - side) // 2, (height - side) // 2, side)


@pytest.mark.assets
def test_real_detectors_find_and_frame_faces(assets: Path) -> None:
    """Frames look like the aligned photos they were taken from, at several sizes and places."""
    paths = sorted((assets / "synthetic-faces" / "images").glob("*.jpg"))[:6]
    detectors = [load_detector(name) for name in LOCATORS]
    for path, side in zip(itertools.cycle(paths), (96, 128, 192, 300, 500, 900), strict=False):
        face = Image.fromarray(load_photo(path)).resize((side, side), Image.Resampling.BICUBIC)
        canvas = Image.fromarray(picture(side + 150, side + 310))
        canvas.paste(face, (200, 90))
        best = face_regions(np.asarray(canvas), detectors)[0]
        assert abs(best.side - side) < 0.25 * side
        assert abs(best.left + best.side / 2 - 200 - side / 2) < 0.15 * side
        assert abs(best.top + best.side / 2 - 90 - side / 2) < 0.15 * side


@pytest.mark.assets
def test_crowd(assets: Path) -> None:
    photo = load_photo(assets / "photos" / "11_Meeting_Meeting_11_Meeting_Meeting_11_26.jpg")
    found = face_regions(photo, [load_detector("retinaface")])
    assert len(found) >= 2
    assert [region.side for region in found] == sorted((region.side for region in found), reverse=True)
