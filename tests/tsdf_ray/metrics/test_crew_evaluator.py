"""Several workers of an evaluator make the table that one makes, and each does its share."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pyarrow as pa
import pytest
import torch

from tsdf_ray.attackers import PrepareConfig, prepare
from tsdf_ray.crew import Crew, Seat
from tsdf_ray.errors import UserError
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.judges import Embedding, load_judge
from tsdf_ray.metrics import Evaluator, Stage
from tsdf_ray.testing.crews import in_crew
from tsdf_ray.testing.linear import BrightCells, LinearFamily, dark_photos_with_a_bright_cell
from tsdf_ray.testing.tiny import tiny_editor

PHOTOS = dark_photos_with_a_bright_cell(11)
CHANGED = PHOTOS.with_pixels(PHOTOS.pixels_BCHW[::-1].copy())
# Made once: fresh weights are drawn from a state that threads share.
FIRST, LATER = tiny_editor(1).freeze(), tiny_editor(2).freeze()
JUDGE = load_judge("judge-128", PHOTOS.attributes)


class Means(torch.nn.Module):
    """A network from photos to vectors; noisy enough that a batch's size could show."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 6, 5)
        with torch.no_grad():
            self.convolution.weight.copy_(torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x).square().mean((2, 3))


class Distance:
    """In the place of LPIPS."""

    def distance(self, a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
        return (a_BCHW - b_BCHW).abs().mean((1, 2, 3)).double()


MEANS = Means().eval().requires_grad_(False)


def evaluator(crew: Crew | None, batch: int = 5, detector: BrightCells | None = None) -> Evaluator:
    seen = Embedding(MEANS, "means", 32, 6)
    return Evaluator(
        JUDGE,
        {"bright": detector or BrightCells()},
        PHOTOS,
        FIRST,
        features=seen,
        identity=seen,
        lpips=Distance(),
        batch=batch,
        seat=Seat() if crew is None else Seat(crew),
    )


def tables(crew: Crew | None) -> Iterator[pa.Table]:
    judge = evaluator(crew)
    yield judge.clean_rows(Stage(1, 1, "reference", model="none"), LATER)
    yield judge.forgery_rows(Stage(1, 0, "before"), LATER, CHANGED)
    yield judge.forgery_rows(Stage(1, 1, "later"), FIRST, CHANGED)
    yield judge.detection_rows(Stage(1, 1, "detection"), CHANGED)
    yield judge.visibility_rows(Stage(1, 1, "visibility"), CHANGED)
    config = PrepareConfig(detectors=("bright",), score_threshold=0.6, crop="box")
    seat = Seat() if crew is None else Seat(crew)
    prepared = prepare(config, {"bright": BrightCells()}, CHANGED, None, seat)
    yield judge.preparation_rows(Stage(1, 1, "preparation"), config, prepared, PHOTOS)


@pytest.mark.parametrize("size", [2, 12])
def test_workers_make_the_table_that_one_makes(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("tsdf_ray.metrics.sets"), "LEAST", 10)
    alone = list(tables(None))
    sets = [row for row in alone[1].to_pylist() if row["metric"].startswith("frechet_")]
    assert all(row["weight"] for row in sets)
    assert sum(len(table) for table in alone) > 500
    for got in in_crew(size, lambda crew: list(tables(crew))):  # with 12 some have nothing to do
        for one, other in zip(alone, got, strict=True):
            # pyarrow compares NaN as unequal; there is none.
            assert other.equals(one)


class Counting(LinearFamily):
    """Counts the photos it forges."""

    def __init__(self) -> None:
        super().__init__()
        self.photos = 0

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        self.photos += len(x_BCHW)
        return super().edit(x_BCHW, c_BA)


def test_forgeries_are_divided_and_made_once() -> None:
    def forged(crew: Crew | None) -> int:
        family, judge = Counting(), evaluator(crew, batch=2)
        for changed in (CHANGED, PHOTOS):
            judge.forgery_rows(Stage(1, 0, "before"), family, changed)
        return family.photos

    shares = in_crew(3, forged)
    assert sum(shares) == forged(None)
    assert max(shares) - min(shares) <= 4  # a chunk of two, clean and published


def test_detections_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("tsdf_ray.attackers.prepare"), "CHUNK", 2)

    class Watched(BrightCells):
        def __init__(self) -> None:
            super().__init__()
            self.photos = 0

        def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list:  # type: ignore[type-arg]
            self.photos += len(x_BCHW)
            return super().detect(x_BCHW, score_threshold)

    def looked_at(crew: Crew) -> int:
        detector = Watched()
        judge = evaluator(crew, detector=detector)
        for _ in range(2):  # of the clean photos once
            judge.detection_rows(Stage(1, 1, "detection"), CHANGED)
        return detector.photos

    shares = in_crew(3, looked_at)
    assert sum(shares) == 3 * len(PHOTOS)
    assert max(shares) <= 12


@pytest.mark.parametrize("flip", [False, True])
def test_preparation_in_chunks_over_workers(flip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("tsdf_ray.attackers.prepare"), "CHUNK", 3)
    half_blind = PHOTOS.take(range(11))
    pixels = half_blind.pixels_BCHW.copy()
    pixels[::3] //= 4  # too dark to be found
    photos = half_blind.with_pixels(pixels)
    config = PrepareConfig(detectors=("bright",), score_threshold=0.6, crop="box", flip=flip, enlarge=1.5)

    def prepared(crew: Crew | None) -> tuple[bytes, ...]:
        found = prepare(config, {"bright": BrightCells()}, photos, None, Seat() if crew is None else Seat(crew))
        assert 0 < len(found.photos) < len(photos)
        return found.photos.pixels_BCHW.tobytes(), found.boxes_N4.tobytes(), found.scores_N.tobytes()

    assert set(in_crew(3, prepared)) == {prepared(None)}


def test_a_network_that_fails_on_one_worker_fails_on_all() -> None:
    class Picky(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if (x[:, 0, 0, 0] > 0.9).any():
                raise RuntimeError("not this one")
            return x.mean((2, 3))

    pixels = PHOTOS.pixels_BCHW.copy()
    pixels[7, :] = 255
    changed: FaceSet = PHOTOS.with_pixels(pixels)

    def judged(crew: Crew) -> None:
        picky = Embedding(Picky(), "picky", 32, 3)
        judge = Evaluator(JUDGE, {}, PHOTOS, LinearFamily().freeze(), identity=picky, batch=3, seat=Seat(crew))
        with pytest.raises(UserError, match="picky"):
            judge.forgery_rows(Stage(1, 0, "before"), LinearFamily().freeze(), changed)

    in_crew(3, judged)
