"""One training loop for pretraining and for the attacker's retraining: the family's own loss, named randomness.

A step is one generator step with its discriminator steps. The fake of the last discriminator step is computed once,
with its graph, and serves the generator step too. Every draw of a step comes from a generator named after that step, so
a run that is resumed at step s draws what the unbroken run draws.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field

from tsdf_ray.errors import MatchFailed, UserError
from tsdf_ray.faces.edits import draw_edits
from tsdf_ray.faces.faceset import FaceSet, to_images
from tsdf_ray.generators.base import Family, Tensors
from tsdf_ray.generators.domains import domain_index
from tsdf_ray.randomness import seed_for, torch_rng

Change = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]
"""(photos [B, 3, H, W], target labels [B, A], the step's generator) -> the photos a step is made with instead."""
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class TrainConfig(BaseModel):
    """How a family is trained or fine-tuned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(100, ge=0, le=10_000_000, description="generator steps")
    batch: int = Field(16, ge=1, le=4096, description="photos per step")
    learning_rate: float = Field(4e-4, gt=0.0, le=1.0, description="Adam's step size, of the generator")
    discriminator_rate: float = Field(
        1.0, gt=0.0, le=100.0, description="the discriminator's step size as a multiple of the generator's"
    )
    betas: tuple[Rate, Rate] = Field((0.5, 0.99), description="Adam's decay rates")
    discriminator_steps: int = Field(1, ge=1, le=100, description="discriminator steps per generator step")
    decay_share: float = Field(
        0.5, ge=0.0, le=1.0, description="last share of the steps, over which both step sizes fall linearly to 0"
    )
    ema_decay: float | None = Field(
        None, gt=0.0, lt=1.0, description="decay of the generator's moving average, which then is the result"
    )
    precision: Literal["float32", "bfloat16"] = Field("bfloat16", description="of the passes (autocast)")
    flips: bool = Field(True, description="mirror photos at random")
    balance: float = Field(
        0.5, ge=0.0, le=1.0, description="how far rare label combinations are drawn more often: 0 not, 1 all alike"
    )


@dataclass(frozen=True)
class TrainResult:
    """What a training left besides the family's new weights."""

    steps: int
    """Steps made in this call."""
    losses: dict[str, float]
    """Mean of each weighted loss term over the steps made; empty when none was made."""
    seconds: float
    snapshots: dict[int, Tensors]
    """Generator tensors (`generator.*`) by step: 0 is before the first step."""


_MOMENTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "step": lambda parameter: torch.zeros((), device=parameter.device),
    "exp_avg": lambda parameter: torch.zeros_like(parameter.detach()),
    "exp_avg_sq": lambda parameter: torch.zeros_like(parameter.detach()),
}
"""Adam's state of one weight, as it is before the first step."""


def _laid_out_as(parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """`gradient` with the strides of its weight: CUDA's of a 1 x 1 convolution may differ, and the optimiser stops."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _parameters(optimiser: torch.optim.Adam) -> list[torch.Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


class Trainer:
    """Optimisers and photos around a family; `step(s)` makes step s, whatever was drawn before it."""

    def __init__(
        self,
        family: Family,
        faces: FaceSet,
        config: TrainConfig,
        run_seed: int,
        names: tuple[str | int, ...],
        change: Change | None = None,
    ) -> None:
        """Raises UserError: fewer photos than a batch, attributes that are not the family's, a side it cannot take."""
        if len(faces) < config.batch:
            raise UserError(f"training: {len(faces)} photos are fewer than one batch of {config.batch}; lower `batch`")
        if faces.attributes != family.attributes:
            raise UserError(f"training: photos carry {faces.attributes}, {family.name} wants {family.attributes}")
        family.check_training_side(faces.size, "training: the photos' side")
        self.family, self.config, self._change = family, config, change
        self.generator, self.discriminator = family.parts["generator"], family.parts["discriminator"]
        for part, module in family.parts.items():
            trained = part not in family.frozen_parts
            module.train(trained).requires_grad_(trained)
        self.device = next(self.generator.parameters()).device
        # uint8 stays uint8: a batch at a time becomes float.
        self._pixels = torch.from_numpy(np.array(faces.pixels_BCHW)).to(self.device)
        self._labels = faces.labels()
        domain_N = domain_index(self._labels, family.attributes)
        self._chance_N = (1.0 / domain_N.bincount()[domain_N].double()) ** config.balance
        self._seed = seed_for(run_seed, *names, "training")
        self.generator_optimiser = self._adam(self.generator, family.rates)
        self.discriminator_optimiser = self._adam(self.discriminator, {"": config.discriminator_rate})
        self.average = {k: v.detach().clone() for k, v in self.generator.state_dict().items()}

    def _adam(self, module: torch.nn.Module, rates: Mapping[str, float]) -> torch.optim.Adam:
        """One group of weights per multiple of the step size; `_set_rates` sets the step sizes."""
        groups: dict[float, list[torch.Tensor]] = {}
        for name, parameter in module.named_parameters():
            scale = next((rate for prefix, rate in rates.items() if name.startswith(prefix)), 1.0)
            groups.setdefault(scale, []).append(parameter)
        scaled = [{"params": parameters, "scale": scale} for scale, parameters in groups.items()]
        return torch.optim.Adam(scaled, self.config.learning_rate, betas=self.config.betas, fused=True)

    def step(self, step: int, shrink: int = 1) -> dict[str, float]:
        """Make step `step` (counted from 0) and return its weighted loss terms; `shrink` averages shrink^2 pixels.

        Raises MatchFailed, naming step and term, when a term is not finite; the step's update is then not made.
        """
        self._set_rates(step)
        terms: dict[str, float] = {}
        for critic in range(self.config.discriminator_steps):
            rng = torch_rng(self._seed, "step", step, critic)
            x_BCHW, own_BA, target_BA = self._draw(rng, shrink)
            if self._change is not None:
                with self._precision():
                    x_BCHW = self._change(x_BCHW, target_BA, rng)
            last = critic == self.config.discriminator_steps - 1
            fake_BCHW = None
            if self.family.shares_fake:
                with self._precision(), torch.set_grad_enabled(last):
                    fake_BCHW = self.family.edit(x_BCHW, target_BA)
            with self._precision():
                losses = self.family.discriminator_loss(x_BCHW, own_BA, target_BA, rng, fake_BCHW)
            terms |= self._descend(step, losses, self.discriminator_optimiser)
        with self._precision():
            losses = self.family.generator_loss(x_BCHW, own_BA, target_BA, rng, fake_BCHW)
        terms |= self._descend(step, losses, self.generator_optimiser)
        self._update_average(step)
        return terms

    def warm_up(self, steps: int) -> None:
        """Train the discriminator alone for some steps: a fresh one would teach a trained generator nothing good.

        At the full step size; draws are named apart from those of `step`. Raises MatchFailed as `step` does.
        """
        self._set_rates(0)
        for step in range(steps):
            rng = torch_rng(self._seed, "warm up", step)
            x_BCHW, own_BA, target_BA = self._draw(rng, 1)
            with self._precision():
                losses = self.family.discriminator_loss(x_BCHW, own_BA, target_BA, rng)
            self._descend(step, losses, self.discriminator_optimiser)

    def _set_rates(self, step: int) -> None:
        falling = self.config.decay_share * self.config.steps
        factor = min(1.0, (self.config.steps - step) / falling) if falling else 1.0
        rate = self.config.learning_rate * factor
        for optimiser in (self.generator_optimiser, self.discriminator_optimiser):
            for group in optimiser.param_groups:
                group["lr"] = rate * group["scale"]

    def _draw(self, rng: torch.Generator, shrink: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        index = torch.multinomial(self._chance_N, self.config.batch, generator=rng)
        own_BA = self._labels[index]
        target_BA = draw_edits(own_BA, self.family.attributes, rng)
        x_BCHW = to_images(self._pixels[index.to(self.device)])
        if self.config.flips:
            mirrored_B = torch.rand(len(index), generator=rng).to(self.device) < 0.5
            x_BCHW = torch.where(mirrored_B[:, None, None, None], x_BCHW.flip(-1), x_BCHW)
        if shrink > 1:
            x_BCHW = F.avg_pool2d(x_BCHW, shrink)
        return x_BCHW, own_BA.to(self.device), target_BA.to(self.device)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _descend(self, step: int, losses: dict[str, torch.Tensor], optimiser: torch.optim.Adam) -> dict[str, float]:
        values = {term: float(loss.detach()) for term, loss in losses.items()}
        for term, value in values.items():
            if not np.isfinite(value):
                raise MatchFailed(f"training {self.family.name}: loss term {term} became {value} at step {step}")
        parameters = _parameters(optimiser)
        total = torch.stack(list(losses.values())).sum()
        # Only this optimiser's weights: a generator step must not pay for gradients of the discriminator's weights.
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else _laid_out_as(parameter, gradient)
        optimiser.step()
        return values

    def _update_average(self, step: int) -> None:
        decay = self.config.ema_decay
        # The average of few steps must not remember the start: its decay grows with the steps made.
        weight = 1.0 if decay is None else 1 - min(decay, (1 + step) / (10 + step))
        for name, value in self.generator.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value.detach(), weight)
            else:
                self.average[name].copy_(value)

    def generator_tensors(self) -> Tensors:
        """The generator that counts (the moving average, where there is one), as `generator.*` arrays."""
        return {f"generator.{name}": value.cpu().numpy().copy() for name, value in self.average.items()}

    def state(self) -> Tensors:
        """Everything a resumed training needs: raw weights, moving average, both optimisers' moments."""
        tensors = self.family.tensors()
        tensors |= {f"average.{name}": value.cpu().numpy().copy() for name, value in self.average.items()}
        for name, optimiser in self._optimisers().items():
            for i, parameter in enumerate(_parameters(optimiser)):
                for key, zero in _MOMENTS.items():
                    value = optimiser.state[parameter].get(key, zero(parameter))
                    tensors[f"adam.{name}.{i}.{key}"] = value.cpu().numpy().copy()
        return tensors

    def load_state(self, tensors: Tensors) -> None:
        """Put back what `state` gave (names and shapes as there)."""
        self.family.load(tensors)
        for name, value in self.average.items():
            value.copy_(torch.from_numpy(np.array(tensors[f"average.{name}"])))
        for name, optimiser in self._optimisers().items():
            for i, parameter in enumerate(_parameters(optimiser)):
                for key, zero in _MOMENTS.items():
                    found = torch.from_numpy(np.array(tensors[f"adam.{name}.{i}.{key}"]))
                    optimiser.state[parameter][key] = zero(parameter).copy_(found)

    def _optimisers(self) -> dict[str, torch.optim.Adam]:
        return {"generator": self.generator_optimiser, "discriminator": self.discriminator_optimiser}

    def finish(self) -> None:
        """Put the moving average into the family's generator, and the family into evaluation mode."""
        self.generator.load_state_dict(self.average)
        for module in self.family.parts.values():
            module.eval()


def train(
    family: Family,
    faces: FaceSet,
    config: TrainConfig,
    run_seed: int,
    names: tuple[str | int, ...],
    snapshots: Sequence[int] = (),
    start_step: int = 0,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    change: Change | None = None,
    warm_up: int = 0,
) -> TrainResult:
    """Train `family` in place on `faces`, steps start_step .. config.steps - 1, with draws named by (run_seed, names).

    Bit-identical for a seed on a CPU with a fixed number of threads. `snapshots` are steps (0 = before) at which the
    generator's tensors are kept; `on_step(steps made so far, loss terms)` is called after each step; `change`
    may put other photos in the place of a batch that was drawn; `warm_up` steps of the discriminator alone
    go before. The optimisers start anew.

    Raises UserError (fewer photos than a batch, other attributes) and MatchFailed (a loss term is not finite).
    """
    started = time.perf_counter()
    trainer = Trainer(family, faces, config, run_seed, names, change)
    trainer.warm_up(warm_up)
    wanted = set(snapshots)
    kept = {start_step: trainer.generator_tensors()} if start_step in wanted else {}
    sums: dict[str, float] = {}
    for step in range(start_step, config.steps):
        terms = trainer.step(step)
        for term, value in terms.items():
            sums[term] = sums.get(term, 0.0) + value
        if step + 1 in wanted:
            kept[step + 1] = trainer.generator_tensors()
        if on_step is not None:
            on_step(step + 1, terms)
    trainer.finish()
    made = max(0, config.steps - start_step)
    means = {term: value / made for term, value in sums.items()}
    return TrainResult(made, means, time.perf_counter() - started, kept)
