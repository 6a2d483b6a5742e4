"""Stage 2, poisoning: a delta on top of w that misleads face detectors, so that prepared photos are missing or wrong.

Losses see the photo as it will be published: w + delta is clipped and truncated to the 8-bit grid in the forward pass,
the gradient passes straight through. Otherwise a delta of less than one step would look good and vanish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field

from tsdf_ray.channels import ChannelConfig
from tsdf_ray.defenders.base import to_budget
from tsdf_ray.defenders.descent import Adam, MomentumSign, Rule
from tsdf_ray.defenders.eot import View, draw_view
from tsdf_ray.defenders.objectives import (
    CleanView,
    ObjectiveConfig,
    feature_loss,
    feature_targets,
    hiding_loss,
    output_loss,
)
from tsdf_ray.defenders.precision import Precision
from tsdf_ray.detectors.base import Detector, RawOutput
from tsdf_ray.errors import MatchFailed
from tsdf_ray.randomness import torch_rng

Weight = Annotated[float, Field(ge=0.0, le=1000.0)]
START = 0.001
"""Scale of the normal noise delta starts from."""


class PoisonConfig(ObjectiveConfig):
    """Stage 2. Deviations from the paper (50 Adam steps of 0.02, squared scores) are marked; all can be set back."""

    steps: int = Field(24, ge=1, le=1000, description="most steps per photo (paper: 50); a hidden photo stops earlier")
    rule: Literal["adam", "sign"] = Field(
        "sign", description="Adam with a cosine to zero (paper), or sign steps of constant size with momentum"
    )
    lr: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="step size on the [-1, 1] scale; default epsilon / 2 (sign), 0.02 (Adam, paper)",
    )
    momentum: float = Field(0.5, ge=0.0, lt=1.0, description="of the normalised gradient, rule sign")
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
    batch: int = Field(16, ge=1, le=256, description="photos optimised at once, each on its own")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the detectors' passes; bfloat16 changes the sign of many of the gradient's entries"
    )

    def step_size(self, epsilon: float) -> float:
        """The step in use."""
        return self.lr or (epsilon / 2 if self.rule == "sign" else 0.02)


@dataclass(frozen=True)
class Poisoner:
    """Optimises deltas for batches of photos against an ensemble of detectors."""

    config: PoisonConfig
    epsilon: float
    detectors: Mapping[str, Detector]
    run_seed: int
    round: int
    eot: tuple[ChannelConfig, ...] = ()

    def poison(
        self, x_BCHW: torch.Tensor, w: torch.Tensor, mask: torch.Tensor, ids: Sequence[str], purpose: str = ""
    ) -> torch.Tensor:
        """One delta per photo, float32 [B, 3, S, S] on the CPU; w + delta is inside +-epsilon where the mask is not 0.

        x: [B, 3, S, S]; w and mask (eq. 15, in [0, 1]): [1 or B, 3, S, S]. Draws are named by photo id and `purpose`,
        and every photo is optimised on its own: its company changes no more than the rounding of a network's sums.
        """
        if self.epsilon == 0.0 or not bool(mask.any()):
            return torch.zeros_like(x_BCHW, device="cpu")
        device = self.device
        found: list[torch.Tensor] = [torch.zeros(0, *x_BCHW.shape[1:])]
        for first in range(0, len(ids), self.config.batch):
            part = slice(first, first + self.config.batch)
            size = len(ids[part])
            rows = [(t[part] if t.shape[0] > 1 else t).to(device).expand(size, -1, -1, -1) for t in (w, mask)]
            found.append(self._batch(x_BCHW[part].to(device), rows[0], rows[1], ids[part], purpose).cpu())
        return torch.cat(found)

    @property
    def device(self) -> torch.device:
        """Where the detectors' weights are."""
        return next((p.device for d in self.detectors.values() for p in d.parameters()), torch.device("cpu"))

    def start(
        self, x_BCHW: torch.Tensor, w: torch.Tensor, mask: torch.Tensor, ids: Sequence[str], purpose: str = ""
    ) -> Rows:
        """A batch before its first step, with the clean passes its losses need; w and mask [B, 3, S, S]."""
        config, device = self.config, x_BCHW.device
        need_clean = config.lambda_f > 0 or not config.hides_by_log_odds
        precision = Precision(self.config.precision, device)
        with precision.autocast():
            clean_BCHW = precision.laid_out(x_BCHW)
            views = {name: CleanView.of(d, clean_BCHW) for name, d in self.detectors.items()} if need_clean else {}
        targets = self._feature_targets(views, mask, ids, purpose) if config.lambda_f else {}
        start = (START * self._normal(x_BCHW.shape[1:], ids, purpose, "poison")).to(device)
        rule: Rule = Adam() if config.rule == "adam" else MomentumSign(config.momentum)
        return Rows(torch.arange(len(ids), device=device), x_BCHW, w, mask, start * mask, views, targets, rule)

    def _batch(
        self, x_BCHW: torch.Tensor, w: torch.Tensor, mask: torch.Tensor, ids: Sequence[str], purpose: str
    ) -> torch.Tensor:
        config, work = self.config, self.start(x_BCHW, w, mask, ids, purpose)
        best, lowest_B = work.delta, torch.full((len(ids),), torch.inf, device=x_BCHW.device)
        for step in range(config.steps + 1):
            last = step == config.steps
            work.delta = work.delta.detach().requires_grad_(not last)
            names = (self.round, "defender", purpose, "eot", step)
            output_B, total_B = self.losses(work, draw_view(self.eot, torch_rng(self.run_seed, *names)))
            # The delta kept is the one with the lowest output loss, which is judged on that same delta. Losses through
            # different channels do not compare: there the last delta is kept, and no photo stops earlier.
            better_B = output_B.detach() < lowest_B[work.place]
            if self.eot:
                better_B = output_B.detach().isfinite()
            best = best.index_put((work.place[better_B],), work.delta.detach()[better_B])
            lowest_B = lowest_B.index_put((work.place[better_B],), output_B.detach()[better_B])
            going_B = (output_B.detach() != 0) | bool(self.eot)
            if last or not bool(going_B.any()):
                break
            (gradient,) = torch.autograd.grad(total_B.sum(), work.delta)
            work.move(gradient, step / config.steps, self.epsilon, config.step_size(self.epsilon))
            if not bool(going_B.all()):
                work.keep(going_B)
        if not bool(torch.isfinite(lowest_B).all()):
            raise MatchFailed(f"round {self.round}: the poison's loss is not finite (NaN or infinity)")
        return best

    def losses(self, work: Rows, view: View) -> tuple[torch.Tensor, torch.Tensor]:
        """Output loss and total over all detectors, one value per photo still worked on."""
        config = self.config
        wanted = work.w + work.delta
        published = wanted + (to_budget(wanted.detach(), self.epsilon) - wanted.detach())
        precision = Precision(self.config.precision, work.x_BCHW.device)
        seen_BCHW = precision.laid_out(view((work.x_BCHW + published).clamp(-1.0, 1.0)))
        output_B = seen_BCHW.new_zeros(seen_BCHW.shape[0])
        feature_B = torch.zeros_like(output_B)
        for name, detector in self.detectors.items():
            weight = config.detector_weights.get(name, 1.0)
            with precision.autocast():
                raw: RawOutput = detector.raw(seen_BCHW)
            if config.hides_by_log_odds:
                loss_B = hiding_loss(raw, len(output_B), config)
            else:
                loss_B = output_loss(raw, work.views[name], seen_BCHW.shape[-1], config)
            output_B = output_B + weight * loss_B
            if name in work.targets:
                change_B = feature_loss(raw.features, work.targets[name], self._levels(raw.features))
                feature_B = feature_B + weight * change_B
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
class Rows:
    """The photos of a batch that are still worked on, and all that belongs to them, one row each."""

    place: torch.Tensor
    x_BCHW: torch.Tensor
    w: torch.Tensor
    mask: torch.Tensor
    delta: torch.Tensor
    views: dict[str, CleanView]
    targets: dict[str, tuple[torch.Tensor, ...]]
    rule: Rule

    def move(self, gradient: torch.Tensor, progress: float, epsilon: float, size: float) -> None:
        """One step of delta, times the mask, with w + delta inside the budget (eq. 17)."""
        moved = self.delta.detach() - self.rule.step(gradient, size, progress)
        self.delta = ((self.w + moved).clamp(-epsilon, epsilon) - self.w) * self.mask

    def keep(self, kept_B: torch.Tensor) -> None:
        """Drop the other photos."""
        self.place, self.x_BCHW, self.w = self.place[kept_B], self.x_BCHW[kept_B], self.w[kept_B]
        self.mask, self.delta = self.mask[kept_B], self.delta[kept_B]
        self.views = {name: view.take(kept_B) for name, view in self.views.items()}
        self.targets = {name: tuple(level[kept_B] for level in levels) for name, levels in self.targets.items()}
        self.rule.keep(kept_B)
