"""One training loop for pretraining and for the attacker's retraining: the family's own loss, named randomness.

A step is one generator step with its discriminator steps. The fake of the last discriminator step is computed once,
with its graph, and serves the generator step too. Every draw of a step comes from a generator named after that step, so
a run that is resumed at step s draws what the unbroken run draws. How a batch is divided among micro-batches and
workers is in `micro_batches.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F

from tsdf_ray.crew import SOLO, Crew
from tsdf_ray.errors import MatchFailed, UserError
from tsdf_ray.faces.edits import draw_edits
from tsdf_ray.faces.faceset import FaceSet, to_images
from tsdf_ray.generators.base import Family, Tensors
from tsdf_ray.generators.domains import domain_index
from tsdf_ray.generators.micro_batches import Division, Losses, MicroBatch, Terms
from tsdf_ray.generators.optimiser import Optimiser
from tsdf_ray.generators.train_config import TrainConfig
from tsdf_ray.randomness import seed_for, torch_rng

Change = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]
"""(photos [B, 3, H, W], target labels [B, A], the step's generator) -> the photos a step is made with instead."""


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
        crew: Crew = SOLO,
        micro_batch: int | None = None,
    ) -> None:
        """Every worker of `crew` makes the same steps; a batch is divided into micro-batches (None: it is not).

        Raises UserError: fewer photos than a batch, attributes that are not the family's, a side it cannot take.
        """
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
        trained_parts = [module for part, module in family.parts.items() if part not in family.frozen_parts]
        self._division = Division(config.batch, micro_batch, crew, trained_parts)
        self.device = next(self.generator.parameters()).device
        # uint8 stays uint8: a batch at a time becomes float.
        self._pixels = torch.from_numpy(np.array(faces.pixels_BCHW)).to(self.device)
        self._labels = faces.labels()
        domain_N = domain_index(self._labels, family.attributes)
        self._chance_N = (1.0 / domain_N.bincount()[domain_N].double()) ** config.balance
        self._seed = seed_for(run_seed, *names, "training")
        rate, betas = config.learning_rate, config.betas
        self.generator_optimiser = Optimiser(self.generator, family.rates, rate, betas)
        self.discriminator_optimiser = Optimiser(self.discriminator, {"": config.discriminator_rate}, rate, betas)
        self.average = {k: v.detach().clone() for k, v in self.generator.state_dict().items()}

    def step(self, step: int, shrink: int = 1) -> dict[str, float]:
        """Make step `step` (counted from 0) and return its weighted loss terms; `shrink` averages shrink^2 pixels.

        Raises MatchFailed, naming step and term, when a term is not finite; the step's update is then not made.
        """
        self._set_rates(step)
        terms: Terms = {}
        for critic in range(self.config.discriminator_steps):
            parts = self._micro_batches(shrink, "step", step, critic)
            last = critic == self.config.discriminator_steps - 1
            losses = self._with_a_forgery(last)
            terms |= self._descend(step, parts, losses, self.discriminator_optimiser)
        terms |= self._descend(step, parts, self._generator_losses, self.generator_optimiser)
        self._update_average(step)
        return terms

    def warm_up(self, steps: int) -> None:
        """Train the discriminator alone for some steps: a fresh one would teach a trained generator nothing good.

        At the full step size; draws are named apart from those of `step`. Raises MatchFailed as `step` does.
        """
        self._set_rates(0)
        for step in range(steps):
            parts = self._micro_batches(1, "warm up", step)
            self._descend(step, parts, self._discriminator_losses, self.discriminator_optimiser)

    def _set_rates(self, step: int) -> None:
        falling = self.config.decay_share * self.config.steps
        factor = min(1.0, (self.config.steps - step) / falling) if falling else 1.0
        rate = self.config.learning_rate * factor
        for optimiser in (self.generator_optimiser, self.discriminator_optimiser):
            optimiser.set_rate(rate)

    def _micro_batches(self, shrink: int, *names: str | int) -> list[MicroBatch]:
        """Those of this worker. The batch is drawn whole on every worker, so that its draws are the same."""
        rng = torch_rng(self._seed, *names)
        drawn = self._draw(rng, shrink)
        return self._division.mine(*drawn, rng, lambda i: torch_rng(self._seed, *names, "part", i))

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

    def _with_a_forgery(self, last: bool) -> Callable[[MicroBatch], Losses]:
        """The discriminator's losses of a step: on photos that were changed, and on a forgery for both losses.

        An undivided batch's last forgery keeps its graph for the generator. Of several micro-batches only one graph
        may be kept at a time, or dividing would save no memory: the generator's step then makes that pass again.
        """
        again = last and self._division.divided

        def losses(part: MicroBatch) -> Losses:
            if self._change is not None:
                with self._precision():
                    part.x_BCHW = self._change(part.x_BCHW, part.target_BA, part.rng)
            if self.family.shares_fake:
                once = self._division.buffers.unchanged() if again else nullcontext()
                with self._precision(), torch.set_grad_enabled(last and not again), once:
                    part.fake_BCHW = self.family.edit(part.x_BCHW, part.target_BA)
            found = self._discriminator_losses(part)
            if again:
                part.fake_BCHW = None
            return found

        return losses

    def _discriminator_losses(self, part: MicroBatch) -> Losses:
        with self._precision():
            return self.family.discriminator_loss(part.x_BCHW, part.own_BA, part.target_BA, part.rng, part.fake_BCHW)

    def _generator_losses(self, part: MicroBatch) -> Losses:
        with self._precision():
            return self.family.generator_loss(part.x_BCHW, part.own_BA, part.target_BA, part.rng, part.fake_BCHW)

    def _descend(
        self,
        step: int,
        parts: Sequence[MicroBatch],
        losses_of: Callable[[MicroBatch], Losses],
        optimiser: Optimiser,
    ) -> Terms:
        def check(terms: Terms) -> None:
            for term, value in terms.items():
                if not np.isfinite(value):
                    raise MatchFailed(f"training {self.family.name}: loss term {term} became {value} at step {step}")

        terms, gradients = self._division.gradients(parts, losses_of, optimiser.weights, check)
        optimiser.descend(gradients)
        return terms

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
            tensors |= {f"adam.{name}.{key}": value for key, value in optimiser.moments().items()}
        return tensors

    def load_state(self, tensors: Tensors) -> None:
        """Put back what `state` gave (names and shapes as there)."""
        self.family.load(tensors)
        for name, value in self.average.items():
            value.copy_(torch.from_numpy(np.array(tensors[f"average.{name}"])))
        for name, optimiser in self._optimisers().items():
            own = f"adam.{name}."
            optimiser.load_moments({k.removeprefix(own): v for k, v in tensors.items() if k.startswith(own)})

    def _optimisers(self) -> dict[str, Optimiser]:
        return {"generator": self.generator_optimiser, "discriminator": self.discriminator_optimiser}

    def finish(self) -> None:
        """Put the moving average into the family's generator, and the family into evaluation mode."""
        self.generator.load_state_dict(self.average)
        for optimiser in self._optimisers().values():
            optimiser.zero_grad()
        for module in self.family.parts.values():
            module.eval()
