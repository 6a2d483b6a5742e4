"""The loops of stage 1: one w for all photos, or one for each (FOUND; TSDF stage 1).

Sources: TSDF (arXiv 2508.07795) section on stage 1, FOUND (arXiv 2303.00200). Per batch some steps enlarge the change
of the encoder's features, then one end-to-end step enlarges the change of output and features, with momentum and with
weights that favour the generator disrupted least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from tsdf_ray.crew import pieces
from tsdf_ray.defenders.base import Knowledge
from tsdf_ray.defenders.descent import sign_step, with_momentum
from tsdf_ray.defenders.forgeries import Visit
from tsdf_ray.defenders.interruption import Interruption, InterruptionConfig
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.edits import all_edits, draw_edits
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.randomness import torch_rng

Between = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
"""(w, photo indices) -> w: what may happen between the feature steps and the end-to-end step of a batch."""


def model_weights(running_MR: torch.Tensor, temperature: float) -> torch.Tensor:
    """Softmax over models of running losses / temperature: [M, R]. Losses are negative changes, so the generator that
    changes least has the largest loss and the largest weight."""
    return (running_MR / temperature).softmax(dim=0)


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


def edits_in_turn(labels_BA: torch.Tensor, attributes: tuple[str, ...], step: int) -> torch.Tensor:
    """Of each photo the edit number `step`, counted round and round: float32 [B, A]. Edits as in evaluation: a photo
    is never asked for what it shows already."""
    own = [all_edits(row[None], attributes).target_PA for row in labels_BA]
    return torch.stack([target_PA[step % len(target_PA)] for target_PA in own])
