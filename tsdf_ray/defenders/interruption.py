"""Stage 1, interruption: a perturbation under which the generator's forgeries break (FOUND; TSDF stage 1).

Sources: TSDF (arXiv 2508.07795) section on stage 1, FOUND (arXiv 2303.00200). Per batch some steps enlarge the change
of the encoder's features, then one end-to-end step enlarges the change of output and features, with momentum and with
weights that favour the generator disrupted least. One code serves a universal w [1, 3, S, S] and one w per photo
[B, 3, S, S]: a loss has one value per row of w.

Gradients are sums over parts (a generator, a micro-batch), which the workers of a crew share. All draws are made for
the whole batch, by every worker alike: a batch in parts sees what the undivided batch sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from pydantic import Field

from tsdf_ray.crew import Total, pieces
from tsdf_ray.defenders.base import Knowledge
from tsdf_ray.defenders.eot import GradientConfig, draw_view
from tsdf_ray.defenders.forgeries import Forgeries, Part, Visit, at_feature_size, mean_square
from tsdf_ray.defenders.scene import Scene, draw_frame
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.edits import all_edits, draw_edits
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.randomness import torch_rng

Between = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
"""(w, photo indices) -> w: what may happen between the feature steps and the end-to-end step of a batch."""


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


def edits_in_turn(labels_BA: torch.Tensor, attributes: tuple[str, ...], step: int) -> torch.Tensor:
    """Of each photo the edit number `step`, counted round and round: float32 [B, A]. Edits as in evaluation: a photo
    is never asked for what it shows already."""
    own = [all_edits(row[None], attributes).target_PA for row in labels_BA]
    return torch.stack([target_PA[step % len(target_PA)] for target_PA in own])


def sign_step(w: torch.Tensor, gradient: torch.Tensor, step: float, epsilon: float) -> torch.Tensor:
    """One descent step: w - step * sign(gradient), clipped to +-epsilon."""
    return (w - step * gradient.sign()).clamp(-epsilon, epsilon)


def with_momentum(gradient: torch.Tensor, previous: torch.Tensor | float, decay: float) -> torch.Tensor:
    """gradient / mean|gradient| + decay * previous; the mean is taken per row of w."""
    scale = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
    return gradient / scale.clamp_min(torch.finfo(gradient.dtype).tiny) + decay * previous


def model_weights(running_MR: torch.Tensor, temperature: float) -> torch.Tensor:
    """Softmax over models of running losses / temperature: [M, R]. Losses are negative changes, so the generator that
    changes least has the largest loss and the largest weight."""
    return (running_MR / temperature).softmax(dim=0)


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


@dataclass
class Course:
    """What runs through a whole training: momentum and running losses."""

    gradient: torch.Tensor | float
    running_MR: torch.Tensor

    def output_step(self, work: Interruption, w: torch.Tensor, visit: Visit, rng: torch.Generator) -> torch.Tensor:
        """One end-to-end step; the weights in use come from the losses before it (1/M at first)."""
        config = work.config
        weights_MR = model_weights(self.running_MR, config.temperature)
        gradient, losses_MR = work.output_gradient(w, visit, weights_MR, rng)
        self.gradient = with_momentum(gradient, self.gradient, config.momentum)
        self.running_MR = config.loss_memory * self.running_MR + (1 - config.loss_memory) * losses_MR
        return sign_step(w, self.gradient, config.step, config.epsilon)


def learn_universal(
    config: InterruptionConfig,
    knowledge: Knowledge,
    free_1CHW: torch.Tensor | None = None,
    between: Between | None = None,
) -> torch.Tensor:
    """One w for all photos, float32 [1, 3, S, S] on the CPU.

    free_1CHW: bool, False where stage 1 must leave w alone (zero unless `between` writes there). between: called per
    batch with (w, photo indices) after the feature steps, its result goes on to the end-to-end step (universal poison).
    """
    photos = knowledge.photos
    shape = (1, 3, photos.size, photos.size)
    if config.epsilon == 0.0:
        return torch.zeros(shape)
    if len(photos) == 0:
        raise MatchFailed("interruption needs photos to learn on, the defender's split is empty")
    name = (knowledge.round, "defender")
    # No micro-batch is larger than the photos there are: halving it would change nothing.
    config = config.model_copy(update={"batch": min(config.batch, len(photos))})
    work = Interruption(config, knowledge, photos)
    start = torch.rand(shape, generator=torch_rng(knowledge.run_seed, *name, "start")) * 2 - 1
    free = torch.ones(shape, dtype=torch.bool) if free_1CHW is None else free_1CHW
    free = free.to(work.device)
    w = (start * config.epsilon).to(work.device) * free
    course = Course(0.0, torch.zeros(len(work.families), 1, device=work.device))
    rng = torch_rng(knowledge.run_seed, *name, "interruption")
    for _ in range(config.epochs):
        order: list[int] = torch.randperm(len(photos), generator=rng).tolist()
        for first in range(0, len(order), config.batch):
            index = order[first : first + config.batch]
            visit = work.visit(index, partial(draw_edits, rng=rng))
            for _ in range(config.feature_steps):
                gradient = work.feature_gradient(w, visit, rng)
                w = torch.where(free, sign_step(w, gradient, config.step, config.epsilon), w)
            if between is not None:
                w = between(w, index)
            w = torch.where(free, course.output_step(work, w, visit, rng), w)
    return w.detach().cpu()


def learn_per_image(
    config: InterruptionConfig, steps: int, knowledge: Knowledge, photos: FaceSet, *, in_turn: bool = False
) -> torch.Tensor:
    """One w per photo by `steps` end-to-end steps on each photo alone: float32 [B, 3, S, S] on the CPU.

    A batch is no larger than a micro-batch: photos are independent. in_turn: every photo's edits one after another
    instead of one drawn per step. Start and conditions are named by
    photo id, the diversity by step, so the result does not depend on the batches.
    """
    shape = (3, photos.size, photos.size)
    if config.epsilon == 0.0 or len(photos) == 0:
        return torch.zeros(len(photos), *shape)
    seed, name = knowledge.run_seed, (knowledge.round, "defender")
    work = Interruption(config, knowledge, photos)
    done: list[torch.Tensor] = []
    for index in map(list, pieces(len(photos), work.at_once)):
        ids = [photos.ids[i] for i in index]
        starts = [torch.rand(shape, generator=torch_rng(seed, *name, "start", i)) * 2 - 1 for i in ids]
        conditions = [torch_rng(seed, *name, "conditions", i) for i in ids]
        w = (torch.stack(starts) * config.epsilon).to(work.device)
        course = Course(0.0, torch.zeros(len(work.families), len(index), device=work.device))
        for step in range(steps):
            ask = partial(edits_in_turn, step=step) if in_turn else partial(_draw_each, rngs=conditions)
            visit = work.visit(index, ask)
            w = course.output_step(work, w, visit, torch_rng(seed, *name, "diversity", step))
        done.append(w.detach().cpu())
    return torch.cat(done)


def _draw_each(labels_BA: torch.Tensor, attributes: tuple[str, ...], rngs: Sequence[torch.Generator]) -> torch.Tensor:
    return torch.cat([draw_edits(own_A[None], attributes, rng) for own_A, rng in zip(labels_BA, rngs, strict=True)])


def finite(gradient: torch.Tensor) -> torch.Tensor:
    """`gradient` itself. Raises MatchFailed when it is not finite: the sign of NaN is 0 and would hide it."""
    if not bool(torch.isfinite(gradient).all()):
        raise MatchFailed("the interruption's gradient is not finite (NaN or infinity): the generator is broken")
    return gradient
