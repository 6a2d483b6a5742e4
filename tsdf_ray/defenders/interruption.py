"""Stage 1, interruption: a perturbation under which the generator's forgeries break (FOUND; TSDF stage 1).

Sources: TSDF (arXiv 2508.07795) section on stage 1, FOUND (arXiv 2303.00200). Per batch some steps enlarge the change
of the encoder's features, then one end-to-end step enlarges the change of output and features, with momentum and with
weights that favour the generator disrupted least. One code serves a universal w [1, 3, S, S] and one w per photo
[B, 3, S, S]: a loss has one value per row of w.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from tsdf_ray.defenders.base import DefenderConfig, Knowledge
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.edits import draw_edits
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family
from tsdf_ray.randomness import torch_rng

FEATURE_SIDE = 32
"""Mid features are compared at 32 x 32."""
PAD_RATIO = 290 / 256
"""Input diversity pads to 290 for photos of 256; other sizes scale."""
CACHE_BYTES = 1 << 27
"""Clean outputs kept at most; the oldest leave first."""

Between = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
"""(w, photo indices) -> w: what may happen between the feature steps and the end-to-end step of a batch."""


class InterruptionConfig(DefenderConfig):
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
    temperature: float = Field(0.1, gt=0.0, le=100.0, description="of the softmax over models; large: equal weights")

    @property
    def step(self) -> float:
        """The sign step in use."""
        return self.epsilon / 5 if self.step_size is None else self.step_size


def input_diversity(x_BCHW: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """With probability 1/2: resize to a random size in [S, 290/256 S), zero-pad at a random place, resize back to S.

    Nearest-neighbour both ways, one draw for the whole batch; x: float [B, 3, S, S].
    """
    if float(torch.rand((), generator=rng)) >= 0.5:
        return x_BCHW
    size = x_BCHW.shape[-1]
    padded = max(size + 1, round(size * PAD_RATIO))
    inner = int(torch.randint(size, padded, (), generator=rng))
    top, left = (int(v) for v in torch.randint(0, padded - inner + 1, (2,), generator=rng))
    small = F.interpolate(x_BCHW, size=(inner, inner), mode="nearest")
    framed = F.pad(small, (left, padded - inner - left, top, padded - inner - top))
    return F.interpolate(framed, size=(size, size), mode="nearest")


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


@dataclass(frozen=True)
class Clean:
    """What one generator makes of clean photos: forgeries [B, 3, S, S], mid features [B, F, 32, 32]."""

    output_BCHW: torch.Tensor
    features_BFHW: torch.Tensor


@dataclass(frozen=True)
class Visit:
    """One batch: indices of its photos, the conditions drawn for them [B, A], and the clean side by generator."""

    index: tuple[int, ...]
    c_BA: torch.Tensor
    clean: Mapping[str, Clean]


class Interruption:
    """Photos with their clean forgeries (each computed once), and the two kinds of steps on any w."""

    def __init__(self, config: InterruptionConfig, knowledge: Knowledge, photos: FaceSet) -> None:
        if not knowledge.generators:
            raise MatchFailed("interruption needs a generator to learn against, the defender's knowledge has none")
        self.config = config
        self.families: Mapping[str, Family] = knowledge.generators
        self.device = device_of(next(iter(self.families.values())))
        self.half = knowledge.precision == "bfloat16"
        self.x_BCHW = photos.images().to(self.device)
        self._clean: dict[tuple[str, int, bytes], Clean] = {}
        self._bytes = 0

    def visit(self, index: Sequence[int], c_BA: torch.Tensor) -> Visit:
        """Photos `index` under conditions `c_BA`, with their clean forgeries and features."""
        c_BA = c_BA.to(self.device)
        keys = [(i, row.numpy().tobytes()) for i, row in zip(index, c_BA.cpu(), strict=True)]
        found: dict[str, Clean] = {}
        for name, family in self.families.items():
            missing = [b for b, key in enumerate(keys) if (name, *key) not in self._clean]
            fresh: dict[int, Clean] = {}
            if missing:
                photos = self.x_BCHW[[index[b] for b in missing]]
                with torch.no_grad(), self._autocast():
                    out, mid = family.edit_and_features(photos, c_BA[missing])
                out, mid = out.float(), at_feature_size(mid)
                fresh = {b: Clean(out[j], mid[j]) for j, b in enumerate(missing)}
            rows = [fresh[b] if b in fresh else self._clean[(name, *key)] for b, key in enumerate(keys)]
            found[name] = Clean(
                torch.stack([row.output_BCHW for row in rows]), torch.stack([row.features_BFHW for row in rows])
            )
            for b, row in fresh.items():
                self._keep((name, *keys[b]), row)
        return Visit(tuple(index), c_BA, found)

    def _keep(self, key: tuple[str, int, bytes], row: Clean) -> None:
        self._clean[key] = Clean(row.output_BCHW.clone(), row.features_BFHW.clone())
        self._bytes += row.output_BCHW.nbytes + row.features_BFHW.nbytes
        while self._bytes > CACHE_BYTES:
            oldest = self._clean.pop(next(iter(self._clean)))
            self._bytes -= oldest.output_BCHW.nbytes + oldest.features_BFHW.nbytes

    def feature_gradient(self, w: torch.Tensor, visit: Visit, rng: torch.Generator) -> torch.Tensor:
        """Gradient of L_feat with respect to w: minus the mean squared change of the mid features, encoders only."""
        w = w.detach().requires_grad_()
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        for name, family in self.families.items():
            with self._autocast():
                mid = family.features(self._perturbed(w, visit, rng), visit.c_BA)
            pairs.append((at_feature_size(mid), visit.clean[name].features_BFHW))
        if self.config.feature_loss == "summed":
            summed = [torch.cat([pair[side] for pair in pairs], dim=1).sum(1, keepdim=True) for side in (0, 1)]
            pairs = [(summed[0], summed[1])]
        loss = sum((-mean_square(a, b).sum() for a, b in pairs), torch.zeros((), device=self.device))
        return finite(torch.autograd.grad(loss, w)[0])

    def output_gradient(
        self, w: torch.Tensor, visit: Visit, weights_MR: torch.Tensor, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient of sum_m a_m L_m with respect to w, and the losses L [M, R] (R: rows of w)."""
        w = w.detach().requires_grad_()
        losses: list[torch.Tensor] = []
        for name, family in self.families.items():
            with self._autocast():
                out, mid = family.edit_and_features(self._perturbed(w, visit, rng), visit.c_BA)
            change_B = self.config.output_weight * mean_square(out.float(), visit.clean[name].output_BCHW)
            change_B = change_B + self.config.feature_weight * mean_square(
                at_feature_size(mid), visit.clean[name].features_BFHW
            )
            losses.append(-change_B if w.shape[0] > 1 else -change_B.mean(0, keepdim=True))
        losses_MR = torch.stack(losses)
        return finite(torch.autograd.grad((weights_MR * losses_MR).sum(), w)[0]), losses_MR.detach()

    def _perturbed(self, w: torch.Tensor, visit: Visit, rng: torch.Generator) -> torch.Tensor:
        x = (self.x_BCHW[list(visit.index)] + w).clamp(-1.0, 1.0)
        return input_diversity(x, rng) if self.config.diversity else x

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)


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
    work = Interruption(config, knowledge, photos)
    start = torch.rand(shape, generator=torch_rng(knowledge.run_seed, *name, "start")) * 2 - 1
    free = torch.ones(shape, dtype=torch.bool) if free_1CHW is None else free_1CHW
    free = free.to(work.device)
    w = (start * config.epsilon).to(work.device) * free
    course = Course(0.0, torch.zeros(len(work.families), 1, device=work.device))
    rng = torch_rng(knowledge.run_seed, *name, "interruption")
    labels_BA = photos.labels()
    for _ in range(config.epochs):
        order: list[int] = torch.randperm(len(photos), generator=rng).tolist()
        for first in range(0, len(order), config.batch):
            index = order[first : first + config.batch]
            c_BA = draw_edits(labels_BA[index], photos.attributes, rng)
            visit = work.visit(index, c_BA)
            for _ in range(config.feature_steps):
                gradient = work.feature_gradient(w, visit, rng)
                w = torch.where(free, sign_step(w, gradient, config.step, config.epsilon), w)
            if between is not None:
                w = between(w, index)
            w = torch.where(free, course.output_step(work, w, visit, rng), w)
    return w.detach().cpu()


def learn_per_image(config: InterruptionConfig, steps: int, knowledge: Knowledge, photos: FaceSet) -> torch.Tensor:
    """One w per photo by `steps` end-to-end steps on each photo alone: float32 [B, 3, S, S] on the CPU.

    Start and conditions are named by photo id, the diversity by step, so the result does not depend on the batches.
    """
    shape = (3, photos.size, photos.size)
    if config.epsilon == 0.0 or len(photos) == 0:
        return torch.zeros(len(photos), *shape)
    seed, name = knowledge.run_seed, (knowledge.round, "defender")
    work = Interruption(config, knowledge, photos)
    labels_BA = photos.labels()
    done: list[torch.Tensor] = []
    for first in range(0, len(photos), config.batch):
        index = list(range(first, min(first + config.batch, len(photos))))
        ids = [photos.ids[i] for i in index]
        starts = [torch.rand(shape, generator=torch_rng(seed, *name, "start", i)) * 2 - 1 for i in ids]
        conditions = [torch_rng(seed, *name, "conditions", i) for i in ids]
        w = (torch.stack(starts) * config.epsilon).to(work.device)
        course = Course(0.0, torch.zeros(len(work.families), len(index), device=work.device))
        for step in range(steps):
            rows = [
                draw_edits(labels_BA[i : i + 1], photos.attributes, rng)
                for i, rng in zip(index, conditions, strict=True)
            ]
            c_BA = torch.cat(rows)
            visit = work.visit(index, c_BA)
            w = course.output_step(work, w, visit, torch_rng(seed, *name, "diversity", step))
        done.append(w.detach().cpu())
    return torch.cat(done)


def mean_square(a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
    """Mean squared difference per photo: [B]."""
    return (a_BCHW - b_BCHW).square().mean(dim=(1, 2, 3))


def at_feature_size(features_BFHW: torch.Tensor) -> torch.Tensor:
    """Mid features as float32, resized bilinearly to 32 x 32."""
    features = features_BFHW.float()
    if features.shape[-2:] == (FEATURE_SIDE, FEATURE_SIDE):
        return features
    return F.interpolate(features, size=(FEATURE_SIDE, FEATURE_SIDE), mode="bilinear", align_corners=False)


def device_of(family: Family) -> torch.device:
    """Where the family's weights are."""
    for module in family.parts.values():
        for parameter in module.parameters():
            return parameter.device
    return torch.device("cpu")


def finite(gradient: torch.Tensor) -> torch.Tensor:
    """`gradient` itself. Raises MatchFailed when it is not finite: the sign of NaN is 0 and would hide it."""
    if not bool(torch.isfinite(gradient).all()):
        raise MatchFailed("the interruption's gradient is not finite (NaN or infinity): the generator is broken")
    return gradient
