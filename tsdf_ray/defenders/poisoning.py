"""Stage 2, poisoning: a delta on top of w that misleads face detectors, so that prepared photos are missing or wrong.

Losses see the photo as it will be published: w + delta is clipped and truncated to the 8-bit grid in the forward pass,
the gradient passes straight through. Otherwise a delta of less than one step would look good and vanish.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field

from tsdf_ray.defenders.base import to_budget
from tsdf_ray.defenders.objectives import CleanView, ObjectiveConfig, feature_loss, feature_targets, output_loss
from tsdf_ray.detectors.base import Detector, RawOutput
from tsdf_ray.errors import MatchFailed
from tsdf_ray.randomness import torch_rng

Weight = Annotated[float, Field(ge=0.0, le=1000.0)]
START = 0.001
"""Scale of the normal noise delta starts from."""


class PoisonConfig(ObjectiveConfig):
    """Stage 2. Deviations from the paper (50 Adam steps of 0.02, squared scores) are marked; all can be set back."""

    steps: int = Field(20, ge=1, le=1000, description="steps per photo (paper: 50)")
    rule: Literal["adam", "sign"] = Field(
        "adam", description="Adam with a cosine to zero (paper), or sign steps of constant size"
    )
    lr: float = Field(0.02, gt=0.0, le=1.0, description="step size on the [-1, 1] scale")
    lambda_o: Weight = Field(1.0, description="weight of the output loss, eq. 13")
    lambda_f: Weight = Field(0.0, description="weight of the feature loss, eq. 12; 0 leaves it out")
    level_weights: tuple[Weight, ...] = Field(
        (5.0, 3.0, 4.0), min_length=1, description="of the feature levels, finest first; the last serves any further"
    )
    feature_noise: float = Field(0.2, ge=0.0, le=10.0, description="of the feature targets")
    detector_weights: dict[str, Weight] = Field(default_factory=dict, description="per detector; 1 where not given")
    universal: bool = Field(
        False, description="poison inside w, learned per batch in stage 1's loop, instead of one delta per photo"
    )
    batch: int = Field(8, ge=1, le=256, description="photos optimised at once, each on its own")


@dataclass(frozen=True)
class Poisoner:
    """Optimises deltas for batches of photos against an ensemble of detectors."""

    config: PoisonConfig
    epsilon: float
    detectors: Mapping[str, Detector]
    run_seed: int
    round: int

    def poison(
        self, x_BCHW: torch.Tensor, w: torch.Tensor, mask: torch.Tensor, ids: Sequence[str], purpose: str = ""
    ) -> torch.Tensor:
        """One delta per photo, float32 [B, 3, S, S] on the CPU; w + delta is inside +-epsilon where the mask is not 0.

        x: [B, 3, S, S]; w and mask (eq. 15, in [0, 1]): [1 or B, 3, S, S]. Draws are named by photo id and `purpose`.
        Batches are filled up to `batch` photos, so that a photo's result does not depend on its company.
        """
        deltas = torch.zeros_like(x_BCHW, device="cpu")
        if self.epsilon == 0.0 or not bool(mask.any()):
            return deltas
        size = self.config.batch
        for first in range(0, len(ids), size):
            real = list(range(first, min(first + size, len(ids))))
            index = real + [real[-1]] * (size - len(real))
            rows = [t[index] if t.shape[0] > 1 else t for t in (w, mask)]
            found = self._batch(x_BCHW[index], rows[0], rows[1], [ids[i] for i in index], purpose)
            deltas[real] = found[: len(real)]
        return deltas

    def _batch(
        self, x_BCHW: torch.Tensor, w: torch.Tensor, mask: torch.Tensor, ids: Sequence[str], purpose: str
    ) -> torch.Tensor:
        config, epsilon = self.config, self.epsilon
        device = next((p.device for d in self.detectors.values() for p in d.parameters()), torch.device("cpu"))
        x_BCHW, w, mask = (t.to(device) for t in (x_BCHW, w, mask))
        views = {name: CleanView.of(detector, x_BCHW) for name, detector in self.detectors.items()}
        targets = self._feature_targets(views, mask, ids, purpose) if config.lambda_f else {}
        delta = (START * self._normal(x_BCHW.shape[1:], ids, purpose, "poison")).to(device) * mask
        state = Adam.like(delta) if config.rule == "adam" else None
        best, lowest_B = delta, torch.full((len(ids),), torch.inf, device=device)
        for step in range(config.steps + 1):
            last = step == config.steps
            delta = delta.detach().requires_grad_(not last)
            wanted = w + delta
            published = wanted + (to_budget(wanted.detach(), epsilon) - wanted.detach())
            seen_BCHW = (x_BCHW + published).clamp(-1.0, 1.0)
            output_B, total_B = self._losses(seen_BCHW, views, targets)
            better_B = output_B.detach() < lowest_B
            best = torch.where(better_B[:, None, None, None], delta.detach(), best)
            lowest_B = torch.where(better_B, output_B.detach(), lowest_B)
            if last or not bool((lowest_B > 0).any()):
                break
            (gradient,) = torch.autograd.grad(total_B.sum(), delta)
            norm_B111 = gradient.flatten(1).norm(dim=1)[:, None, None, None]
            gradient = gradient / norm_B111.clamp_min(1.0)
            with torch.no_grad():
                if state is None:
                    moved = delta - config.lr * gradient.sign()
                else:
                    moved = delta - state.step(
                        gradient, config.lr * 0.5 * (1 + math.cos(math.pi * step / config.steps))
                    )
                moved = (w + moved).clamp(-epsilon, epsilon) - w
                delta = moved * mask
        if not bool(torch.isfinite(lowest_B).all()):
            raise MatchFailed(f"round {self.round}: the poison's loss is not finite (NaN or infinity)")
        return best.cpu()

    def _losses(
        self, seen_BCHW: torch.Tensor, views: Mapping[str, CleanView], targets: Mapping[str, tuple[torch.Tensor, ...]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output loss and total, [B] each, over all detectors."""
        config = self.config
        output_B = seen_BCHW.new_zeros(seen_BCHW.shape[0])
        feature_B = torch.zeros_like(output_B)
        for name, detector in self.detectors.items():
            weight = config.detector_weights.get(name, 1.0)
            raw: RawOutput = detector.raw(seen_BCHW)
            output_B = output_B + weight * output_loss(raw, views[name], seen_BCHW.shape[-1], config)
            if name in targets:
                feature_B = feature_B + weight * feature_loss(raw.features, targets[name], self._levels(raw.features))
        return output_B, config.lambda_o * output_B + config.lambda_f * feature_B

    def _levels(self, features: tuple[torch.Tensor, ...]) -> tuple[float, ...]:
        given = self.config.level_weights
        return tuple(given[min(level, len(given) - 1)] for level in range(len(features)))

    def _feature_targets(
        self, views: Mapping[str, CleanView], mask: torch.Tensor, ids: Sequence[str], purpose: str
    ) -> dict[str, tuple[torch.Tensor, ...]]:
        found: dict[str, tuple[torch.Tensor, ...]] = {}
        for name, view in views.items():
            noise = tuple(
                self._normal(level.shape[1:], ids, purpose, f"features {name} {number}").to(level.device)
                for number, level in enumerate(view.features)
            )
            found[name] = feature_targets(view, mask, noise, self.config.feature_noise)
        return found

    def _normal(self, shape: torch.Size, ids: Sequence[str], purpose: str, what: str) -> torch.Tensor:
        """Standard normal noise per photo, named by its id: [B, *shape]."""
        names = (self.round, "defender", purpose, what)
        return torch.stack([torch.randn(shape, generator=torch_rng(self.run_seed, *names, i)) for i in ids])


@dataclass
class Adam:
    """Adam with default betas on one tensor of independent photos."""

    mean: torch.Tensor
    square: torch.Tensor
    count: int = 0

    @staticmethod
    def like(delta: torch.Tensor) -> Adam:
        """Fresh moments for `delta`."""
        return Adam(torch.zeros_like(delta), torch.zeros_like(delta))

    def step(self, gradient: torch.Tensor, lr: float) -> torch.Tensor:
        """What to subtract."""
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient.square()
        mean = self.mean / (1 - 0.9**self.count)
        square = self.square / (1 - 0.999**self.count)
        return lr * mean / (square.sqrt() + 1e-8)
