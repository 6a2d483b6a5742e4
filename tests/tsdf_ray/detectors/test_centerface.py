"""CenterFace against an independent evaluation of the exported graph, and where its boxes come from."""

from __future__ import annotations

import pytest
import torch

from tsdf_ray.defenders.objectives import ObjectiveConfig, hiding_loss
from tsdf_ray.defenders.poisoning import PoisonConfig, Poisoner
from tsdf_ray.detectors.centerface import CenterFace
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.faces.splits import FacesConfig, load_splits

# Computed from centerface.onnx (sha256 09189deaaf86) with onnx.reference.ReferenceEvaluator of onnx 1.23.2 on the
# sample photos of these ids, as RGB 0..255. The graph was declared as opset 15 for that: in opset 9, as exported, the
# evaluator mixes statistics of the batch into batch norms that have a momentum.
GOLDEN = {
    "005204": {
        "cell": (17, 14),
        "log_odds": 2.616392135620117,
        "score": 0.9319091439247131,
        "box": (20.302010238170624, 17.02929186075926, 95.04462498426437, 122.83842729777098),
        "log_odds_sum": -5127.6298828125,
        "feature_means": (0.746740996837616, 0.7988880276679993, 1.134853482246399),
    },
    "004081": {
        "cell": (17, 15),
        "log_odds": 2.694808006286621,
        "score": 0.9367195963859558,
        "box": (26.678271919488907, 19.837793961167336, 97.84518018364906, 119.7879816442728),
        "log_odds_sum": -5484.50927734375,
        "feature_means": (0.7108438611030579, 0.7822588086128235, 1.0560126304626465),
    },
}


@pytest.fixture(scope="module")
def detector() -> CenterFace:
    return CenterFace.load()


@pytest.fixture(scope="module")
def sample() -> FaceSet:
    """The packaged sample's 96 photos for evaluation."""
    return load_splits(FacesConfig(), 0).evaluation


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_equal_to_the_exported_graph(detector: CenterFace, sample: FaceSet, name: str) -> None:
    golden = GOLDEN[name]
    x = sample.images()[[sample.ids.index(name)]]
    out = detector.raw(x)
    (group,) = out.groups
    best = int(group.log_odds_N.argmax())
    assert divmod(best, 32) == golden["cell"]
    assert float(group.log_odds_N[best]) == pytest.approx(golden["log_odds"], abs=1e-3)
    assert float(group.scores_N[best]) == pytest.approx(golden["score"], abs=1e-4)
    assert group.boxes_N4[best].tolist() == pytest.approx(golden["box"], abs=1e-3)
    assert float(group.log_odds_N.sum()) == pytest.approx(golden["log_odds_sum"], abs=0.05)
    assert [float(level.mean()) for level in out.features] == pytest.approx(golden["feature_means"], abs=1e-4)
    (boxes,) = detector.detect(x)
    assert len(boxes) == 1
    assert torch.equal(boxes.boxes_N4[0], group.boxes_N4[best])


def test_every_sample_photo_shows_one_face(detector: CenterFace, sample: FaceSet) -> None:
    found = [boxes for batch in sample.images().split(32) for boxes in detector.detect(batch)]
    assert [len(boxes) for boxes in found] == [1] * len(sample)


def test_levels_and_locations_cover_the_photo_and_not_its_padding(detector: CenterFace) -> None:
    """130 x 65 is padded to 160 x 96; what lies beyond the photo's last started cell is not part of the answer."""
    out = detector.raw(torch.zeros(2, 3, 130, 65))
    assert [tuple(level.shape) for level in out.features] == [(2, 24, 33, 17), (2, 24, 17, 9), (2, 24, 9, 5)]
    (group,) = out.groups
    assert len(group.scores_N) == 2 * 33 * 17
    assert torch.bincount(group.photo_N).tolist() == [33 * 17] * 2


def test_a_face_moves_with_the_photo(detector: CenterFace, sample: FaceSet) -> None:
    """32 px more on the left and 64 above move the box by as much; the size stays."""
    x = sample.images()[:1]
    moved = torch.nn.functional.pad(x, (32, 0, 64, 0))
    (before,), (after,) = detector.detect(x), detector.detect(moved)
    assert len(after) == 1
    shift = after.boxes_N4[0] - before.boxes_N4[0]
    assert shift.tolist() == pytest.approx([32, 64, 32, 64], abs=6)


@pytest.mark.parametrize("form", [{"score_form": "log_odds"}, {"score_form": "squared"}, {"lambda_f": 0.01}])
def test_a_few_steps_of_suppress_lower_the_score(
    detector: CenterFace, sample: FaceSet, form: dict[str, object]
) -> None:
    """Every photo's highest log-odds fall, in the photo as published, by the default rule's first six steps."""
    x = sample.images()[:4]
    config = PoisonConfig(steps=6, **form)  # type: ignore[arg-type]
    w, mask = torch.zeros(1, 3, 128, 128), torch.ones(1, 3, 128, 128)
    delta = Poisoner(config, 0.05, {"centerface": detector}, 0, 1).poison(x, w, mask, sample.ids[:4])
    assert float(delta.abs().max()) <= 0.05 + 1e-6
    before, after = (
        detector.raw(photos).groups[0].log_odds_N.reshape(4, -1).amax(1) for photos in (x, (x + delta).clamp(-1, 1))
    )
    assert (after < before - 0.5).all()


def test_nothing_is_left_to_hide_in_a_grey_photo(detector: CenterFace) -> None:
    loss_B = hiding_loss(detector.raw(torch.zeros(2, 3, 128, 128)), 2, ObjectiveConfig())
    assert loss_B.tolist() == [0.0, 0.0]
