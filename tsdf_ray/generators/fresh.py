"""Families with fresh weights, from a named seed: torch's global generator is left as it was."""

from __future__ import annotations

import torch
from pydantic import BaseModel

from tsdf_ray.generators.base import Family
from tsdf_ray.randomness import seed_for


def fresh_family(kind: type[Family], config: BaseModel | None, run_seed: int, *names: str | int) -> Family:
    """A `kind` with untrained weights that depend on the config, the run seed and the names alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(run_seed, *names, "weights"))
        return kind(config)


def restart(family: Family, run_seed: int, *names: str | int) -> Family:
    """The same kind and size with untrained weights; parts that the loss keeps frozen are taken over (from scratch)."""
    config = family.config_class.model_validate_json(family.config_json())
    fresh = fresh_family(type(family), config, run_seed, *names)
    fresh.load(family.tensors(family.frozen_parts))
    return fresh
