"""Intensity separation: which entries of the perturbation belong to which function, and how much they may carry.

The paper's eq. 15 lets poison into entries where the interruption is weak. A reserved `share` (ours) keeps entries
free of interruption from the start, so that poison has the full budget there.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field


class ShareConfig(BaseModel):
    """Entries of w (colour values, not pixels) that interruption must leave at zero."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fraction: float = Field(0.0, ge=0.0, le=1.0, description="share of all entries reserved for poison; 0 as the paper")
    choice: Literal["random", "weakest"] = Field(
        "random",
        description="at random, or the smallest |w| of an unrestricted pass (learning takes twice as long)",
    )


def separation_mask(w: torch.Tensor, tau: float, beta: float) -> torch.Tensor:
    """Eq. 15: M = exp(-beta |w|) where |w| < tau, else 0. Same shape as `w`, values in [0, 1]."""
    magnitude = w.abs()
    return torch.exp(-beta * magnitude) * (magnitude < tau)


def reserve_random(share: float, shape: tuple[int, ...], rng: torch.Generator) -> torch.Tensor:
    """Bool tensor of `shape` with exactly round(share * entries) True at random places."""
    total = int(torch.Size(shape).numel())
    reserved = torch.zeros(total, dtype=torch.bool)
    reserved[torch.randperm(total, generator=rng)[: round(share * total)]] = True
    return reserved.reshape(shape)


def reserve_weakest(share: float, w: torch.Tensor) -> torch.Tensor:
    """Bool tensor of `w`'s shape: True at the round(share * entries) smallest |w|; ties by position."""
    order = w.abs().flatten().argsort(stable=True)
    reserved = torch.zeros(w.numel(), dtype=torch.bool, device=w.device)
    reserved[order[: round(share * w.numel())]] = True
    return reserved.reshape(w.shape)
