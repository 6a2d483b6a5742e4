"""A whole training: the attacker's retraining, and the rehearsals before it. Steps are in `trainer.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tsdf_ray.crew import SOLO, Crew
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family, Tensors
from tsdf_ray.generators.train_config import TrainConfig
from tsdf_ray.generators.trainer import Change, Trainer


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
    crew: Crew = SOLO,
    micro_batch: int | None = None,
) -> TrainResult:
    """Train `family` in place on `faces`, steps start_step .. config.steps - 1, with draws named by (run_seed, names).

    Bit-identical for a seed and `micro_batch` on a CPU with a fixed number of threads, for any number of workers in
    `crew`, all of which call it with the same arguments; a batch not above `micro_batch` is not divided. `snapshots`
    are steps (0 = before) at which the generator's tensors are kept; `on_step(steps made so far, loss terms)` is called
    after each step; `change` may put other photos in the place of a batch that was drawn; `warm_up` steps of the
    discriminator alone go before. The optimisers start anew.

    Raises UserError (fewer photos than a batch, other attributes) and MatchFailed (a loss term is not finite).
    """
    started = time.perf_counter()
    trainer = Trainer(family, faces, config, run_seed, names, change, crew, micro_batch)
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
