"""`face_poison`: break the features of one face detector (FacePoison, Li et al., ICME 2023; journal form TDSC 2025).

Which features matter is measured on copies of the photo with dropped pixels (feature importance, as Wang et al. 2021,
arXiv 2107.14185); steps alternate the plain gradient with one averaged over spectra (Long et al. 2022, arXiv
2207.05382).

The importance is the gradient of a distance from the clean features, so it points away from them: the photo climbs
sum_l weight_l * mean(importance_l * F_l(x')) - similarity * mean cos(F(x'), F of the clean and masked copies), the
latter at the last level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from tsdf_ray.crew import pieces
from tsdf_ray.defenders.base import DefenceState, Defender, DefenderConfig, Knowledge
from tsdf_ray.defenders.descent import MomentumSign
from tsdf_ray.defenders.eot import GradientConfig, View, draw_view
from tsdf_ray.defenders.interruption import finite
from tsdf_ray.detectors.base import Detector
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.randomness import torch_rng

Weight = Annotated[float, Field(ge=0.0, le=1000.0)]


class FacePoisonConfig(GradientConfig):
    """Published values; lengths are doubled where the paper counts them on [0, 1] (epsilon 8/255, step 2/255)."""

    epsilon: float = Field(
        16 / 255, ge=0.0, le=1.0, description="L-infinity budget on the [-1, 1] scale (paper: 8/255)"
    )
    steps: int = Field(10, ge=1, le=1000, description="sign steps per photo, plain and over spectra in turn")
    step_size: float | None = Field(
        None, gt=0.0, le=1.0, description="on the [-1, 1] scale; default epsilon / 4 (paper: 2/255 of 8/255)"
    )
    level_weights: tuple[Weight, ...] = Field(
        (0.2, 0.3, 0.5), min_length=1, description="of the feature levels, finest first; the last serves any further"
    )
    masks: int = Field(30, ge=1, le=1000, description="copies with dropped pixels behind the importance")
    keep: float = Field(0.4, gt=0.0, lt=1.0, description="probability that a pixel is kept in such a copy")
    similarity: float = Field(1.0, ge=0.0, le=1000.0, description="weight of the cosine similarity (paper: t2)")
    spectra: int = Field(10, ge=1, le=1000, description="copies of a step over spectra")
    spectrum_noise: float = Field(32 / 255, ge=0.0, le=2.0, description="normal noise of those copies (paper: 16/255)")
    spectrum_spread: float = Field(0.5, ge=0.0, le=1.0, description="their spectra are scaled by 1 +- this, uniformly")
    batch: int = Field(8, ge=1, le=256, description="photos optimised at once, each on its own")

    @property
    def step(self) -> float:
        """The sign step in use."""
        return self.epsilon / 4 if self.step_size is None else self.step_size

    @model_validator(mode="after")
    def _one_detector(self) -> FacePoisonConfig:
        if len(self.detectors) != 1:
            raise PydanticCustomError("detectors", "face_poison attacks one detector: name it in `detectors`", {})
        return self


@dataclass(frozen=True)
class Importance:
    """Of clean photos, one row each: what their features' entries count for, and where their last features point."""

    levels: tuple[torch.Tensor, ...]
    """Per level [B, C, h, w], L2 norm 1 per photo."""
    direction_BD: torch.Tensor
    """Mean of the unit vectors of the last features, clean and masked."""


class FacePoison(Defender):
    """Per image, against one detector."""

    name: ClassVar[str] = "face_poison"
    config_class: ClassVar[type[DefenderConfig]] = FacePoisonConfig
    config: FacePoisonConfig

    @property
    def batch_per_image(self) -> int:
        """Photos optimised at once."""
        return self.config.batch

    def learn(self, knowledge: Knowledge) -> DefenceState:
        """No tensors: all work is done per photo."""
        return DefenceState(knowledge)

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        """One w per photo, float32 [B, 3, S, S] in +-epsilon.

        Raises MatchFailed for a detector it may not know, and when a gradient is not finite.
        """
        found = [torch.zeros(0, 3, photos.size, photos.size)]
        if self.config.epsilon == 0.0:
            return torch.zeros(len(photos), 3, photos.size, photos.size)
        detector = state.knowledge.detectors[self.config.detectors[0]]
        device = next((p.device for p in detector.parameters()), torch.device("cpu"))
        for index in pieces(len(photos), state.knowledge.at_once(self.config.batch)):
            part = photos.take(index)
            found.append(self._poison(detector, part.images().to(device), part.ids, state.knowledge).cpu())
        return torch.cat(found)

    def _poison(
        self, detector: Detector, x_BCHW: torch.Tensor, ids: Sequence[str], knowledge: Knowledge
    ) -> torch.Tensor:
        config, rule = self.config, MomentumSign(1.0)  # the sign of a running sum is that of the running mean
        names = (knowledge.run_seed, knowledge.round, "defender", "face_poison")
        masks = [torch_rng(*names, "masks", name) for name in ids]
        importance = self._importance(detector, x_BCHW, masks)
        spectra = [torch_rng(*names, "spectra", name) for name in ids]
        w = torch.zeros_like(x_BCHW)
        for step in range(config.steps):
            view = draw_view(config.eot, torch_rng(*names, "eot", step))
            seen_BCHW = (x_BCHW + w).clamp(-1.0, 1.0)
            if step % 2 == 0:
                gradient = self._gradient(detector, seen_BCHW, importance, view)
            else:
                copies = (_respectrum(seen_BCHW, config, spectra) for _ in range(config.spectra))
                gradient = torch.stack([self._gradient(detector, copy, importance, view) for copy in copies]).mean(0)
            w = (w + rule.step(finite(gradient), config.step, step / config.steps)).clamp(
                -config.epsilon, config.epsilon
            )
        return w

    def _gradient(
        self, detector: Detector, seen_BCHW: torch.Tensor, importance: Importance, view: View
    ) -> torch.Tensor:
        """Of the objective, with respect to the photo; through a spectrum's copy as if it were the photo."""
        seen_BCHW = seen_BCHW.detach().requires_grad_()
        features = detector.features(view(seen_BCHW))
        total = -self.config.similarity * (unit(features[-1]) * importance.direction_BD).sum()
        for level, (feature, weight) in enumerate(zip(features, importance.levels, strict=True)):
            given = self.config.level_weights
            total = total + given[min(level, len(given) - 1)] * (weight * feature).mean(dim=(1, 2, 3)).sum()
        return torch.autograd.grad(total, seen_BCHW)[0]

    def _importance(self, detector: Detector, x_BCHW: torch.Tensor, rngs: Sequence[torch.Generator]) -> Importance:
        with torch.no_grad():
            clean = detector.features(x_BCHW)
        total = [torch.zeros_like(level) for level in clean]
        direction_BD = unit(clean[-1])
        for _ in range(self.config.masks):
            kept = torch.stack([torch.rand(1, *x_BCHW.shape[2:], generator=rng) < self.config.keep for rng in rngs])
            # A dropped pixel is mid-grey, 0: the same for every detector.
            features = detector.features((x_BCHW * kept.to(x_BCHW.device)).requires_grad_())
            for level, slope in enumerate(distance_slopes(features, clean)):
                total[level] = total[level] + slope
            direction_BD = direction_BD + unit(features[-1].detach())
        return Importance(
            tuple(level / level.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None] for level in total),
            direction_BD / (self.config.masks + 1),
        )


def distance_slopes(features: Sequence[torch.Tensor], clean: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Gradient, with respect to each level's features, of the L1 distance of the last level from its clean features.

    A level the last one is not computed from (branches of a pyramid, nets of a cascade) answers for itself: the
    gradient of its own L1 distance.
    """
    distance = (features[-1] - clean[-1]).abs().sum()
    slopes = torch.autograd.grad(distance, list(features), allow_unused=True)
    own = [(feature - before).sign().detach() for feature, before in zip(features, clean, strict=True)]
    return [mine if slope is None else slope for slope, mine in zip(slopes, own, strict=True)]


def unit(features_BCHW: torch.Tensor) -> torch.Tensor:
    """Features as unit vectors, [B, C h w]."""
    return torch.nn.functional.normalize(features_BCHW.flatten(1), dim=1)


def cosine_basis(size: int) -> torch.Tensor:
    """The orthonormal DCT-II matrix D [size, size]: D x transforms columns, its transpose inverts it."""
    place = (2 * torch.arange(size, dtype=torch.float64) + 1) * math.pi / (2 * size)
    basis = torch.cos(torch.arange(size, dtype=torch.float64)[:, None] * place) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis.float()


def _respectrum(x_BCHW: torch.Tensor, config: FacePoisonConfig, rngs: Sequence[torch.Generator]) -> torch.Tensor:
    """The photos with noise, and every entry of their spectra scaled at random."""
    shape, low = x_BCHW.shape[1:], 1 - config.spectrum_spread
    noise, scale = [], []
    for rng in rngs:
        noise.append(torch.randn(shape, generator=rng) * config.spectrum_noise)
        scale.append(torch.rand(shape, generator=rng) * 2 * config.spectrum_spread + low)
    basis = cosine_basis(shape[-1]).to(x_BCHW.device)
    spectrum = basis @ (x_BCHW + torch.stack(noise).to(x_BCHW.device)) @ basis.T
    return basis.T @ (spectrum * torch.stack(scale).to(x_BCHW.device)) @ basis
