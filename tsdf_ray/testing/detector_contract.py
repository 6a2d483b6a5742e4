"""What every face detector must hold, as a test class: subclass it, say how yours is made, and run pytest.

class TestMine(DetectorContract):
    def make(self) -> Detector:
        return Mine.load()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F

from tsdf_ray.detectors.base import Detector, RawOutput
from tsdf_ray.faces import FacesConfig, load_splits
from tsdf_ray.testing.randomness import no_global_draws

REGION = 8
"""Side in pixels of the squares that each must get a gradient."""


class DetectorContract(ABC):
    """Sound scores and boxes, sizes, company, repeatability, frozen weights, and gradients down to the pixel."""

    threshold: ClassVar[float] = 0.7
    """Score above which faces are asked for."""
    sizes: ClassVar[tuple[tuple[int, int], ...]] = ((64, 64), (65, 97), (130, 72), (128, 256))
    """(height, width) of photos that must pass."""
    step: ClassVar[float] = 1e-6
    """Of the finite differences, in float64 on the [-1, 1] scale."""

    @abstractmethod
    def make(self) -> Detector:
        """The detector under test, as `load` gives it: frozen, in evaluation mode. Equal weights for every call."""

    def photos(self) -> torch.Tensor:
        """float32 [B, 3, H, W] in [-1, 1]: faces to find. Four of the packaged sample, 128 px."""
        return _sample()

    def held(self, detector: Detector, x_BCHW: torch.Tensor) -> Callable[[torch.Tensor], RawOutput]:
        """`raw` as a smooth function near `x`, for finite differences.

        A cascade whose crops follow the photo without a gradient holds here those of `x`.
        """
        return detector.raw

    def test_the_raw_pass_is_what_it_says(self) -> None:
        detector, x = self.make(), self.photos()
        given = x.clone()
        out = detector.raw(x)
        assert torch.equal(x, given), "the photos were changed"
        assert len(out.features) == len(detector.feature_levels) >= 1, "feature_levels does not name the features"
        for name, level in zip(detector.feature_levels, out.features, strict=True):
            assert (level.ndim, len(level), level.dtype) == (4, len(x), torch.float32), name
            assert bool(level.isfinite().all()), name
        assert out.groups, "no anchors"
        for group in out.groups:
            count = len(group.photo_N)
            assert (group.photo_N.dtype, group.boxes_N4.shape) == (torch.int64, (count, 4)), group.name
            assert group.scores_N.shape == group.log_odds_N.shape == (count,), group.name
            assert bool(((group.photo_N >= 0) & (group.photo_N < len(x))).all()), group.name
            for values in (group.scores_N, group.log_odds_N, group.boxes_N4):
                assert values.dtype == torch.float32, group.name
                assert bool(values.isfinite().all()), group.name
            assert bool(((group.scores_N >= 0) & (group.scores_N <= 1)).all()), f"{group.name}: a score leaves [0, 1]"
            torch.testing.assert_close(group.scores_N, group.log_odds_N.sigmoid(), msg=f"{group.name}: log-odds")

    def test_features_alone_are_those_of_the_whole_pass(self) -> None:
        detector, x = self.make(), self.photos()
        alone, whole = detector.features(x), detector.raw(x).features
        for name, one, two in zip(detector.feature_levels, alone, whole, strict=True):
            torch.testing.assert_close(one, two, msg=name)

    def test_finds_are_sound(self) -> None:
        """Best first, above the threshold, boxes with corners in order that lie on the photo."""
        detector, x = self.make(), self.photos()
        found = detector.detect(x, self.threshold)
        assert len(found) == len(x)
        assert sum(len(boxes) for boxes in found) > 0, "nothing is found: give photos() or a threshold with finds"
        for boxes in found:
            assert boxes.boxes_N4.shape == (len(boxes), 4)
            assert (boxes.boxes_N4.dtype, boxes.scores_N.dtype) == (torch.float32, torch.float32)
            assert bool(boxes.boxes_N4.isfinite().all())
            assert bool(((boxes.scores_N > self.threshold) & (boxes.scores_N <= 1)).all()), "a score is out of range"
            assert torch.equal(boxes.scores_N, boxes.scores_N.sort(descending=True).values), "not best first"
            low_N2, high_N2 = boxes.boxes_N4[:, :2], boxes.boxes_N4[:, 2:]
            assert bool((low_N2 < high_N2).all()), "corners are not in order"
            far_2 = x.new_tensor([x.shape[3], x.shape[2]])
            assert bool(((high_N2 > 0) & (low_N2 < far_2)).all()), "a box lies beside the photo"

    def test_a_photo_without_finds_has_an_empty_list(self) -> None:
        (boxes,) = self.make().detect(self.photos()[:1], 1.0)  # no score is above 1
        assert (boxes.boxes_N4.shape, boxes.scores_N.shape) == ((0, 4), (0,))

    def test_a_higher_threshold_gives_a_part_of_the_finds(self) -> None:
        detector, x = self.make(), self.photos()
        for low, high in zip(detector.detect(x, self.threshold / 2), detector.detect(x, self.threshold), strict=True):
            kept = low.scores_N > self.threshold
            torch.testing.assert_close(high.scores_N, low.scores_N[kept], atol=1e-5, rtol=0)
            torch.testing.assert_close(high.boxes_N4, low.boxes_N4[kept], atol=1e-3, rtol=1e-4)

    def test_a_photo_does_not_depend_on_its_company(self) -> None:
        detector, x = self.make(), self.photos()
        batch = torch.cat([x[:2], torch.zeros_like(x[:1]), x[2:]])  # with a grey one in the middle
        features = detector.features(batch)
        for i, together in enumerate(detector.detect(batch, self.threshold)):
            (alone,) = detector.detect(batch[i : i + 1], self.threshold)
            assert len(alone) == len(together)
            torch.testing.assert_close(alone.boxes_N4, together.boxes_N4, atol=1e-3, rtol=1e-4)
            torch.testing.assert_close(alone.scores_N, together.scores_N, atol=1e-4, rtol=0)
            for level, own in zip(features, detector.features(batch[i : i + 1]), strict=True):
                torch.testing.assert_close(own, level[i : i + 1], atol=1e-3, rtol=1e-3)

    def test_any_size(self) -> None:
        """Feature shapes depend on the photos' size alone; gradients are finite on a flat photo too."""
        detector, x = self.make(), self.photos()
        for size in self.sizes:
            faces = F.interpolate(x[:2], size=size, mode="bilinear")
            flat = torch.zeros_like(faces, requires_grad=True)
            out = detector.raw(flat)
            shapes = [level.shape for level in detector.features(faces)]
            assert [level.shape for level in out.features] == shapes, f"feature shapes of {size} photos differ"
            (gradient,) = torch.autograd.grad(_any(out), flat)
            assert bool(gradient.isfinite().all()), f"gradient of a flat photo of {size} px"
            assert len(detector.detect(faces, self.threshold)) == len(faces)

    def test_every_region_gets_a_gradient(self) -> None:
        detector, x = self.make(), self.photos().requires_grad_()
        out = detector.raw(x)
        parts = {
            "features": list(out.features),
            "log_odds": [group.log_odds_N for group in out.groups],
            "boxes": [group.boxes_N4 for group in out.groups],
        }
        for what, values in parts.items():
            assert all(value.requires_grad for value in values if value.numel()), f"{what}: no gradient"
            (gradient,) = torch.autograd.grad(_weighed(values), x, retain_graph=True)
            assert bool(gradient.isfinite().all()), what
            reached = F.max_pool2d(gradient.abs(), REGION, ceil_mode=True)
            assert bool((reached > 0).all()), f"{what}: a region of the photo gets no gradient"

    def test_gradients_agree_with_finite_differences(self) -> None:
        """Central differences in float64 at 8 random entries."""
        exact, x = self.make().double(), self.photos()[:1].double()
        raw = self.held(exact, x)
        inputs = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(_any(raw(inputs)), inputs)
        with torch.no_grad():
            for entry in torch.randint(x.numel(), (8,), generator=torch.Generator().manual_seed(7)).tolist():
                nudge = torch.zeros(x.numel(), dtype=x.dtype)
                nudge[entry] = self.step
                nudge = nudge.view_as(x)
                slope = float(_any(raw(x + nudge)) - _any(raw(x - nudge))) / (2 * self.step)
                wanted = float(gradient.flatten()[entry])
                assert abs(slope - wanted) <= 1e-3 * abs(wanted) + 1e-5, f"entry {entry}: {wanted}, in truth {slope}"

    def test_weights_are_frozen(self) -> None:
        detector, x = self.make(), self.photos()
        before = {name: value.clone() for name, value in detector.state_dict().items()}
        assert not any(module.training for module in detector.modules()), "in training mode"
        _any(detector.raw(x.requires_grad_())).backward()  # type: ignore[no-untyped-call]
        detector.detect(x, self.threshold)
        for name, weight in detector.named_parameters():
            assert not weight.requires_grad, f"{name} asks for a gradient"
            assert weight.grad is None, f"{name} got a gradient"
        for name, value in detector.state_dict().items():
            assert torch.equal(value, before[name]), f"{name} changed"

    def test_detection_has_no_gradient(self) -> None:
        for boxes in self.make().detect(self.photos().requires_grad_(), self.threshold):
            assert not boxes.boxes_N4.requires_grad
            assert not boxes.scores_N.requires_grad

    def test_no_draw_changes_what_is_found(self) -> None:
        detector, x = self.make(), self.photos()
        found = []
        for seed in (1, 2):
            with no_global_draws(seed):
                found.append((detector.detect(x, self.threshold), detector.raw(x)))
        (one, raw_one), (two, raw_two) = found
        for a, b in zip(one, two, strict=True):
            assert torch.equal(a.boxes_N4, b.boxes_N4), "found in another place the second time"
            assert torch.equal(a.scores_N, b.scores_N)
        for level, again in zip(raw_one.features, raw_two.features, strict=True):
            assert torch.equal(level, again)


def _sample() -> torch.Tensor:
    counts = {"defender": 1, "attacker": 1, "evaluation": 4}
    config = FacesConfig.model_validate({"source": "sample", "size": 128, "counts": counts})
    return load_splits(config, 0, ("Male",)).evaluation.images()


def _weighed(values: list[torch.Tensor]) -> torch.Tensor:
    """The sum under fixed random weights: no entry's gradient cancels by symmetry."""
    rng = torch.Generator().manual_seed(5)
    return torch.stack([(v * torch.randn(v.shape, generator=rng, dtype=v.dtype)).sum() for v in values]).sum()


def _any(out: RawOutput) -> torch.Tensor:
    return _weighed([*out.features, *(group.log_odds_N for group in out.groups)])
