"""Stage 2 on a real detector: faces leave or false ones come, in the photo as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tsdf_ray.defenders import DefenceState, Knowledge, make_defender
from tsdf_ray.defenders.base import to_budget
from tsdf_ray.defenders.eot import View
from tsdf_ray.defenders.objectives import hiding_loss
from tsdf_ray.defenders.poisoning import PoisonConfig, Poisoner
from tsdf_ray.detectors import Detector, load_detector
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.faceset import HAIR, FaceSet
from tsdf_ray.testing.linear import BrightCells, LinearFamily, dark_photos_with_a_bright_cell

SIZE = 96


@pytest.fixture(scope="module")
def faces(assets: Path) -> FaceSet:
    """Six synthetic faces."""
    chosen = sorted((assets / "synthetic-faces" / "images").iterdir())[100:106]
    pixels = [
        np.asarray(Image.open(file).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)) for file in chosen
    ]
    labels = np.tile(np.array([[1, 0, 0, 0]], np.uint8), (len(chosen), 1))
    return FaceSet(np.stack(pixels).transpose(0, 3, 1, 2), labels, (*HAIR, "Male"), tuple(f.stem for f in chosen))


@pytest.fixture(scope="module")
def retinaface() -> Detector:
    return load_detector("retinaface")


def _poisoned(faces: FaceSet, detectors: dict[str, Detector], epsilon: float = 0.08, **poison: Any) -> FaceSet:
    """Photos with poison alone: every entry is reserved, so w is zero."""
    config = {"epsilon": epsilon, "detectors": list(detectors), "share": {"fraction": 1.0}, "poison": poison}
    defender = make_defender("tsdf", config)
    shape = (1, 3, faces.size, faces.size)
    state = {"w": np.zeros(shape, np.float32), "reserved": np.ones(shape, np.uint8)}
    return defender.protect(DefenceState(Knowledge(0, 1, {}, detectors, faces), state), faces)


def _highest(detector: Detector, photos: FaceSet) -> torch.Tensor:
    """Largest log-odds of each photo."""
    (group,) = detector.raw(photos.images()).groups
    return group.log_odds_N.reshape(len(photos), -1).amax(1).detach()


@pytest.mark.assets
def test_suppress_hides_every_face(faces: FaceSet, retinaface: Detector) -> None:
    assert all(len(found) == 1 for found in retinaface.detect(faces.images()))
    published = _poisoned(faces, {"retinaface": retinaface})
    assert sum(len(found) for found in retinaface.detect(published.images())) == 0


@pytest.mark.assets
@pytest.mark.parametrize("poison", [{"score_form": "squared"}, {"rule": "adam"}, {"lambda_f": 0.01}])
def test_suppress_lowers_the_scores_in_its_other_forms(
    faces: FaceSet, retinaface: Detector, poison: dict[str, Any]
) -> None:
    published = _poisoned(faces, {"retinaface": retinaface}, steps=12, **poison)
    assert float((_highest(retinaface, faces) - _highest(retinaface, published)).mean()) > 0.5


@pytest.mark.assets
@pytest.mark.parametrize("score_form", ["log_odds", "squared"])
def test_fabricate_floods_the_photo(faces: FaceSet, retinaface: Detector, score_form: str) -> None:
    published = _poisoned(faces, {"retinaface": retinaface}, objective="fabricate", score_form=score_form, steps=12)
    before, after = (
        sum(len(found) for found in retinaface.detect(photos.images(), 0.5)) for photos in (faces, published)
    )
    assert after >= before + 2 * len(faces)


@pytest.mark.assets
def test_an_ensemble_is_hidden_from_both(faces: FaceSet, retinaface: Detector) -> None:
    two = {"retinaface": retinaface, "mtcnn": load_detector("mtcnn")}
    published = _poisoned(faces, two, steps=16)
    found = {name: sum(map(len, detector.detect(published.images()))) for name, detector in two.items()}
    clean = {name: sum(map(len, detector.detect(faces.images()))) for name, detector in two.items()}
    assert found["retinaface"] < clean["retinaface"]
    assert found["mtcnn"] < clean["mtcnn"]


class Watched(Poisoner):
    """Remembers the lowest output loss each photo had during optimisation."""

    lowest: torch.Tensor

    def losses(self, work: Any, view: View) -> tuple[torch.Tensor, torch.Tensor]:
        output_B, total_B = super().losses(work, view)
        seen = self.__dict__.setdefault("lowest", torch.full((6,), torch.inf))
        seen[work.place] = torch.minimum(seen[work.place], output_B.detach())
        return output_B, total_B


class Valley(BrightCells):
    """Bright cells are faces, and so are they when made a little darker than grey: long steps overshoot."""

    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cells, halved = super().features(x_BCHW)
        return torch.where(cells > -0.2, cells.abs(), cells), halved


# Steps of a tenth of the grid's: a delta of less than one step is judged as what it becomes, nothing.
@pytest.mark.parametrize(("detector", "lr"), [(BrightCells(), 0.03), (BrightCells(), 0.0002), (Valley(), 0.07)])
def test_the_delta_kept_is_the_best_one_as_published(detector: BrightCells, lr: float) -> None:
    """The published photo, rounded, has the lowest loss that was seen: nothing is lost between optimiser and photo."""
    photos = dark_photos_with_a_bright_cell(6)
    config = PoisonConfig(steps=4, lr=lr, margin=100.0)
    watched = Watched(config, 0.08, {"bright": detector}, 0, 1)
    w, mask = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    delta = watched.poison(photos.images(), w, mask, photos.ids)
    published = (photos.images() + to_budget(delta, 0.08)).clamp(-1, 1)
    loss = hiding_loss(detector.raw(published), 6, config).detach()
    torch.testing.assert_close(loss, watched.__dict__["lowest"])
    assert torch.equal(published, photos.images()) == (lr == 0.0002)


def test_poison_stays_where_the_mask_lets_it() -> None:
    photos = dark_photos_with_a_bright_cell(6)
    w = torch.full((1, 3, 32, 32), 0.05)
    w[..., :16] = 0.0
    mask = (w == 0).float()
    config = PoisonConfig(steps=5, margin=8.0)
    delta = Poisoner(config, 0.05, {"bright": BrightCells()}, 0, 1).poison(photos.images(), w, mask, photos.ids)
    assert delta.abs().amax((0, 1, 2))[16:].max() == 0
    assert delta[..., :16].abs().max() > 0.03
    assert (w + delta).abs().max() <= 0.05 + 1e-6


def test_hidden_photos_leave_the_batch_and_the_others_go_on() -> None:
    """The photos' cells are ever brighter: passes get smaller, all end up hidden."""
    photos = dark_photos_with_a_bright_cell(6)
    brighter = np.arange(132, 150, 3, dtype=np.uint8).reshape(6, 1, 1, 1)
    photos = photos.with_pixels(np.where(photos.pixels_BCHW > 130, brighter, photos.pixels_BCHW))
    sizes: list[int] = []

    class Sized(BrightCells):
        def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
            sizes.append(len(x_BCHW))
            return super().features(x_BCHW)

    detector = Sized()
    delta = _delta(photos, detector, steps=30, lr=0.016, margin=1.0, momentum=0.0)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 1
    assert float(detector.raw(photos.images() + delta).groups[0].log_odds_N.max()) < 0


def _delta(photos: FaceSet, detector: Detector, **poison: Any) -> torch.Tensor:
    poisoner = Poisoner(PoisonConfig(**poison), 0.2, {"bright": detector}, 0, 1)
    shape = (1, 3, photos.size, photos.size)
    return to_budget(poisoner.poison(photos.images(), torch.zeros(shape), torch.ones(shape), photos.ids), 0.2)


def test_universal_poison_is_one_for_all_and_stands_in_the_reserved_share() -> None:
    photos = dark_photos_with_a_bright_cell(6)
    poison = {"universal": True, "steps": 6, "margin": 8.0}
    config = {"epsilon": 0.08, "detectors": ["bright"], "share": {"fraction": 0.5}, "poison": poison}
    defender = make_defender("tsdf", config)
    knowledge = Knowledge(0, 1, {"g": LinearFamily().freeze()}, {"bright": BrightCells()}, photos)
    state = defender.learn(knowledge)
    assert (state.tensors["w"][state.tensors["reserved"] == 1] != 0).any()
    assert defender.perturb(state, photos).shape == (1, 3, 32, 32)
    published = defender.protect(state, photos)
    detector = BrightCells()
    assert float((_highest(detector, photos) - _highest(detector, published)).mean()) > 0.5


@pytest.mark.parametrize(("detectors", "size", "says"), [({}, 32, "may not"), ({"bright": BrightCells()}, 40, "40 px")])
def test_what_does_not_fit_is_said(detectors: dict[str, Detector], size: int, says: str) -> None:
    defender = make_defender("tsdf", {"detectors": ["bright"], "share": {"fraction": 0.5}})
    photos = dark_photos_with_a_bright_cell(2)
    state = defender.learn(Knowledge(0, 1, {"g": LinearFamily().freeze()}, detectors, photos))
    with pytest.raises(MatchFailed, match=says):
        defender.apply(state, dark_photos_with_a_bright_cell(2, size))
