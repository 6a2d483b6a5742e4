"""Stage 1, interruption: a perturbation under which the generator's forgeries break (FOUND; TSDF stage 1).

Sources: TSDF (arXiv 2508.07795) section on stage 1, FOUND (arXiv 2303.00200). Here are the two kinds of gradients: of
the change of the encoder's features, and of the change of output and features, end to end; `learning.py` takes the
steps. One code serves a universal w [1, 3, S, S] and one w per photo [B, 3, S, S]: a loss has one value per row of w.

Gradients are sums over parts (a generator, a micro-batch), which the workers of a crew share. All draws are made for
the whole batch, by every worker alike: a batch in parts sees what the undivided batch sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field

from tsdf_ray.crew import Total, pieces
from tsdf_ray.defenders.base import Knowledge
from tsdf_ray.defenders.eot import GradientConfig, draw_view
from tsdf_ray.defenders.forgeries import Forgeries, Part, Visit, at_feature_size, mean_square
from tsdf_ray.defenders.scene import Scene, draw_frame
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.faceset import FaceSet


class InterruptionConfig(GradientConfig):
    """Stage 1. Unlike the paper (30 epochs of 16 batches, step 0.001): few, larger steps, for a CPU's budget."""

    epochs: int = Field(1, ge=1, le=1000, description="passes over the defender's photos (paper: 30)")
    batch: int = Field(8, ge=1, le=512, description="photos per step")
    step_size: float | None = Field(
        None, gt=0.0, le=1.0, description="sign step on the [-1, 1] scale; default epsilon / 5 (paper: 0.001)"
    )
    feature_steps: int = Field(3, ge=0, le=100, description="feature steps before each end-to-end step")
    momentum: float = Field(0.8, ge=0.0, lt=1.0, description="of the end-to-end gradient")
    diversity: bool = Field(True, description="random resize and padding of the perturbed photos")
    feature_loss: Literal["per_model", "summed"] = Field(
        "per_model", description="summed: channels of all generators added up before the difference (published code)"
    )
    output_weight: float = Field(0.7, ge=0.0, le=100.0, description="of the output's change in the end-to-end step")
    feature_weight: float = Field(0.3, ge=0.0, le=100.0, description="of the features' change in the end-to-end step")
    loss_memory: float = Field(0.9, ge=0.0, lt=1.0, description="decay of the running loss behind the model weights")
    temperature: float = Field(0.1, gt=0.0, le=1e9, description="of the softmax over models; large: equal weights")

    @property
    def step(self) -> float:
        """The sign step in use."""
        return self.epsilon / 5 if self.step_size is None else self.step_size


def output_alone(config: GradientConfig, step_size: float, batch: int) -> InterruptionConfig:
    """Plain steps on the mean over generators of MSE(G(x'), G(x)), what the published baselines maximise, with the
    budget and the channels of `config`."""
    return InterruptionConfig(
        epsilon=config.epsilon,
        eot=config.eot,
        batch=batch,
        step_size=step_size,
        momentum=0.0,
        diversity=False,
        output_weight=1.0,
        feature_weight=0.0,
        temperature=1e9,
    )


class Interruption(Forgeries):
    """Photos with their clean forgeries (each computed once), and the two kinds of steps on any w."""

    def __init__(self, config: InterruptionConfig, knowledge: Knowledge, photos: FaceSet) -> None:
        super().__init__(knowledge, photos, config.batch)
        self.config = config

    def scene(self, rng: torch.Generator) -> Scene:
        """Draw one."""
        view, size = draw_view(self.config.eot, rng), self.x_BCHW.shape[-1]
        return Scene(view, {name: draw_frame(size, rng) for name in self.families} if self.config.diversity else {})

    def needed(self, batch: int) -> dict[str, range]:
        """Where features are summed over generators, also the clean side of this worker's micro-batches."""
        rows = super().needed(batch)
        if self.config.feature_loss == "summed":
            micro = pieces(batch, self.at_once)
            for own in (micro[n] for n in self.crew.mine(len(micro))):
                for name in self.families:
                    known = rows.get(name, own)
                    rows[name] = range(min(known.start, own.start), max(known.stop, own.stop))
        return rows

    def feature_gradient(self, w: torch.Tensor, visit: Visit, rng: torch.Generator) -> torch.Tensor:
        """Gradient of L_feat with respect to w: minus the mean squared change of the mid features, encoders only."""
        w, scene = w.detach().requires_grad_(), self.scene(rng)
        parts = self.parts(len(visit.index))
        items, costs = [[part] for part in parts], self.costs(parts)
        if self.config.feature_loss == "summed":
            micro = pieces(len(visit.index), self.at_once)
            items, costs = [[Part(name, rows) for name in self.families] for rows in micro], None
        total = self.crew.total(len(items), costs)
        for n in total.mine:
            pairs = [self._features(rows_of(w, part), visit, part, scene) for part in items[n]]
            now, clean = pairs[0]
            if self.config.feature_loss == "summed":
                now, clean = (torch.cat([pair[side] for pair in pairs], dim=1).sum(1, keepdim=True) for side in (0, 1))
            total.add(torch.autograd.grad(-mean_square(now, clean).sum(), w))
            del pairs, now  # their graph holds the network's maps
        return finite(summed(total, [w])[0])

    def output_gradient(
        self, w: torch.Tensor, visit: Visit, weights_MR: torch.Tensor, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient of sum_m a_m L_m with respect to w, and the losses L [M, R] (R: rows of w).

        The weights a are known before the losses, so one part's graph is gone before the next one's is built.
        """
        w, scene = w.detach().requires_grad_(), self.scene(rng)
        items, models = self.parts(len(visit.index)), list(self.families)
        total = self.crew.total(len(items), self.costs(items))
        for n in total.mine:
            part = items[n]
            own = models.index(part.generator), part.slice if w.shape[0] > 1 else slice(None)
            losses_R = -self.changes(rows_of(w, part), visit, part, scene)
            if w.shape[0] == 1:
                # A mean over the batch is the sum of its micro-batches' means by their shares.
                losses_R = losses_R.mean(0, keepdim=True) * (len(part.rows) / len(visit.index))
            (gradient,) = torch.autograd.grad((weights_MR[own] * losses_R).sum(), w)
            found_MR = torch.zeros_like(weights_MR)
            found_MR[own] = losses_R.detach()
            total.add([gradient, found_MR])
        gradient, losses_MR = summed(total, [w, weights_MR])
        return finite(gradient), losses_MR

    def changes(self, w: torch.Tensor, visit: Visit, part: Part, scene: Scene) -> torch.Tensor:
        """How much w, [1 or m, 3, S, S], changes output and features of each of the m photos of a part: [m]."""
        clean = visit.clean[part.generator].take(part.rows)
        seen_BCHW = self._perturbed(w, visit, part, scene)
        with self.precision.autocast():
            out, mid = self.families[part.generator].edit_and_features(
                seen_BCHW, visit.target[part.generator][part.slice]
            )
        change_B = self.config.output_weight * mean_square(out.float(), clean.output_BCHW)
        if self.config.feature_weight:
            change_B = change_B + self.config.feature_weight * mean_square(at_feature_size(mid), clean.features_BFHW)
        return change_B

    def _features(self, w: torch.Tensor, visit: Visit, part: Part, scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
        """Mid features of a part now, and of the clean photos."""
        seen_BCHW = self._perturbed(w, visit, part, scene)
        with self.precision.autocast():
            mid = self.families[part.generator].features(seen_BCHW, visit.target[part.generator][part.slice])
        return at_feature_size(mid), visit.clean[part.generator].take(part.rows).features_BFHW

    def _perturbed(self, w: torch.Tensor, visit: Visit, part: Part, scene: Scene) -> torch.Tensor:
        x = scene.view((visit.x_BCHW[part.slice] + w).clamp(-1.0, 1.0))
        return self.precision.laid_out(scene.frames[part.generator](x) if scene.frames else x)


def rows_of(w: torch.Tensor, part: Part) -> torch.Tensor:
    """What of w belongs to a part's photos: a universal one does to all."""
    return w if w.shape[0] == 1 else w[part.slice]


def summed(total: Total, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The whole sum. Plus zero: a single item's -0 would be another number in w than a sum's 0."""
    return [whole + 0.0 for whole in total.sum(like)]


def finite(gradient: torch.Tensor) -> torch.Tensor:
    """`gradient` itself. Raises MatchFailed when it is not finite: the sign of NaN is 0 and would hide it."""
    if not bool(torch.isfinite(gradient).all()):
        raise MatchFailed("the interruption's gradient is not finite (NaN or infinity): the generator is broken")
    return gradient
