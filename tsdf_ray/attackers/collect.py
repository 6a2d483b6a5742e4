"""Which photos the attacker collects in a round, and which of them were protected when they were published.

The attacker's split is shuffled once per run seed, alike for every pair of a scenario, and each round takes the next
photos: they are disjoint over the rounds. The attacker's own photos stand at the end of that order and are never
published: it never sees a clean version of a protected photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from tsdf_ray.errors import UserError
from tsdf_ray.randomness import numpy_rng


class CollectConfig(BaseModel):
    """What is collected per round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: int = Field(128, ge=1, le=1_000_000, description="photos collected per round, new ones each round")
    protected: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="share of them that is protected; 0 is an attacker that finds only clean ones",
    )
    own: int = Field(
        0, ge=0, le=1_000_000, description="clean photos it has of its own, to learn purification on; never published"
    )
    pool: Literal["round", "cumulative"] = Field(
        "round", description="retrain on this round's photos alone, or on those of all rounds so far"
    )


@dataclass(frozen=True)
class Choice:
    """The photos of one round."""

    index_N: npt.NDArray[np.intp]
    """Positions in the attacker's split."""
    protected_N: npt.NDArray[np.bool_]
    """Which of them the defender protects before they are published."""


def check_supply(config: CollectConfig, rounds: int, available: int) -> None:
    """Raise UserError when `rounds` rounds and its own photos need more than the attacker's split has."""
    needed = rounds * config.photos + config.own
    if needed > available:
        own = f" and {config.own} of its own" if config.own else ""
        raise UserError(
            f"collect.photos: {rounds} rounds of {config.photos} photos{own} need {needed}, the attacker's split has "
            f"{available}; lower collect.photos or rounds, or raise faces.counts.attacker"
        )


def choose(config: CollectConfig, run_seed: int, round: int, available: int) -> Choice:
    """The photos of round `round` (from 1) out of `available`; depends on its arguments alone.

    Raises UserError when the split is exhausted before the end of that round.
    """
    check_supply(config, round, available)
    order = _order(run_seed, available)
    index_N = order[(round - 1) * config.photos : round * config.photos]
    protected_N = np.zeros(config.photos, dtype=np.bool_)
    count = int(np.floor(config.protected * config.photos + 0.5))
    protected_N[numpy_rng(run_seed, round, "attacker", "protected").permutation(config.photos)[:count]] = True
    return Choice(index_N, protected_N)


def own_photos(config: CollectConfig, run_seed: int, available: int) -> npt.NDArray[np.intp]:
    """Positions of the attacker's own clean photos in its split: those no round collects."""
    return _order(run_seed, available)[available - config.own :]


def _order(run_seed: int, available: int) -> npt.NDArray[np.intp]:
    return numpy_rng(run_seed, 0, "attacker", "collect").permutation(available).astype(np.intp)
